"""API keys with the least rights: one only writes, one only asks what is stored, one reads, one reads audit lines too.

A key lies in a file that only its owner reads, from where the shipper takes it anew at each connection: to rotate it
is to replace the file, and then to make the old key invalid.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskscope.errors import SettingsError
from taskscope_exporters.logs.client import Cause, Trouble, connect
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.template import stream_patterns

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["KeyRole", "key_file", "key_roles", "make_keys"]

_LONGEST: Final = 4096
_LOOK_UP: Final = ("indices:data/read/mget*", "indices:admin/resolve/index")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRole:
    """What a key is for: which streams, and which privileges on them. It has none on the cluster."""

    name: str
    streams: tuple[str, ...]
    privileges: tuple[str, ...]

    def descriptors(self) -> dict[str, dict[str, object]]:
        """As the server takes it."""
        granted = {"names": list(self.streams), "privileges": list(self.privileges)}
        return {f"taskscope_{self.name}": {"cluster": [], "indices": [granted]}}

    def __str__(self) -> str:
        return f"{' and '.join(self.privileges)} on {' and '.join(self.streams)}"


def key_roles(service: str) -> tuple[KeyRole, ...]:
    """The four roles. By the checker's a shipper that only writes learns which lines in doubt are stored."""
    lines, audit = stream_patterns(service), stream_patterns(service, audit=True)
    reads = ("read", "view_index_metadata")
    return (
        KeyRole(
            name="shipper", streams=(lines, audit), privileges=("create_doc", "auto_configure")
        ),
        KeyRole(name="checker", streams=(lines, audit), privileges=_LOOK_UP),
        # The collector of the counts asks how many lines each shard holds.
        KeyRole(name="reader", streams=(lines,), privileges=(*reads, "monitor")),
        KeyRole(name="auditor", streams=(lines, audit), privileges=reads),
    )


def key_file(folder: Path, role: KeyRole) -> Path:
    """Where the role's key lies."""
    return folder / f"{role.name}.key"


def make_keys(
    client: Elasticsearch,
    settings: ShipSettings,
    service: str,
    folder: Path,
    *,
    rotate: bool = False,
    expires: str | None = None,
) -> tuple[str, ...]:
    """Each role has a valid key in its file of `folder`; returns a sentence for each that was made.

    rotate: those that are there are replaced and made invalid. expires: after which time a new key ends, such as `90d`.
    Raises SettingsError if a file cannot be used, Trouble if a key is not valid any more, or if the login may not
    give what a role needs, and the client's errors.
    """
    _private(folder)
    said: list[str] = []
    for role in key_roles(service):
        old = _read(key_file(folder, role))
        if old is None or rotate:
            encoded = _created(client, settings, service, role, expires)
            said.append(_stored(client, folder, role, encoded, old))
        else:
            _check(settings, role, key_file(folder, role), old)
    return tuple(said)


def _created(
    client: Elasticsearch, settings: ShipSettings, service: str, role: KeyRole, expires: str | None
) -> str:
    with _explained(settings):
        made = client.security.create_api_key(
            name=f"taskscope {service} {role.name}",
            role_descriptors=role.descriptors(),
            metadata={"managed_by": "taskscope", "service": service, "role": role.name},
            expiration=expires,
            refresh=True,  # else it waits up to a second until it can be made invalid
        ).body
    encoded = str(made["encoded"])
    # A key can do no more than who made it, and the server says nothing when it does less.
    lacking = _lacking(settings, role, encoded)
    if lacking:
        _invalidate(client, encoded)
        raise Trouble(
            Cause.REFUSED,
            f"this login may not give {' and '.join(lacking)} for the key {role.name}; log in as one that has them",
        )
    return encoded


def _stored(
    client: Elasticsearch, folder: Path, role: KeyRole, encoded: str, old: str | None
) -> str:
    path = key_file(folder, role)
    try:
        _write(path, encoded)
    except OSError as error:
        _invalidate(client, encoded)
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}; name another folder with --into"
        ) from error
    if old is None:
        return f"key {role.name} was made, with {role}; it lies in {path}"
    if _invalidate(client, old):
        return f"key {role.name} was replaced in {path}; the old one is not valid any more"
    return f"key {role.name} was replaced in {path}; the old one, {_id(old)}, is still valid, as it is another login's"


def _check(settings: ShipSettings, role: KeyRole, path: Path, encoded: str) -> None:
    from elasticsearch import AuthenticationException

    try:
        lacking = _lacking(settings, role, encoded)
    except AuthenticationException as error:
        raise Trouble(
            Cause.REFUSED,
            f"{settings.url} does not know the key in {path} (any more); make new ones with --rotate",
        ) from error
    if lacking:
        raise Trouble(
            Cause.REFUSED,
            f"the key in {path} lacks {' and '.join(lacking)}; make new ones with --rotate",
        )


def _lacking(settings: ShipSettings, role: KeyRole, encoded: str) -> tuple[str, ...]:
    """The privileges that the key should have and has not."""
    own = replace(settings, api_key=Secret(text=encoded), username=None, password=None)
    asked = {"names": list(role.streams), "privileges": list(role.privileges)}
    with connect(own) as client:
        answer = client.security.has_privileges(index=[asked]).body
    granted = answer["index"]
    return tuple(
        privilege
        for privilege in role.privileges
        if not all(granted[stream][privilege] for stream in role.streams)
    )


def _invalidate(client: Elasticsearch, encoded: str) -> bool:
    """Whether the key is not valid any more; another login's may stay so."""
    from elasticsearch import AuthorizationException

    for own in (False, True):
        try:
            done = client.security.invalidate_api_key(ids=[_id(encoded)], owner=own).body
        except AuthorizationException:
            continue
        return bool(done["invalidated_api_keys"] or done["previously_invalidated_api_keys"])
    return False


@contextmanager
def _explained(settings: ShipSettings) -> Iterator[None]:
    from elasticsearch import ApiError

    try:
        yield
    except ApiError as error:
        said = str(error.body)
        if "derived" in said:
            why, remedy = "a key cannot make other keys", "log in with a name and password"
        elif "not enabled" in said or "no handler found" in said or "Security must be" in said:
            why = "its security or its API keys are switched off"
            remedy = "set xpack.security.enabled and xpack.security.authc.api_key.enabled"
        elif error.meta.status == 403:
            why, remedy = "this login may not make keys", "give it manage_own_api_key"
        else:
            raise
        raise Trouble(Cause.REFUSED, f"{settings.url} makes no key: {why}; {remedy}") from error


def _id(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be made: {error.strerror}; name another folder with --into"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise SettingsError(
            f"{folder} is a link, or can be written by other users; name another folder with --into"
        )


def _read(path: Path) -> str | None:
    """The key in the file, None if there is no file. Raises SettingsError for one that others could have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; remove it") from error
    with os.fdopen(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise SettingsError(
                f"{path} is open to other users, so its key is no secret; close it (chmod 600) and run with --rotate"
            )
        return file.read(_LONGEST).decode("ascii", "replace").strip()


def _write(path: Path, encoded: str) -> None:
    """The file has the key, or is as it was before; only its owner may ever read it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
        file.write(encoded.encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
