"""The key that signs tokens: given, or made at first start in a file that only its owner reads."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from taskscope.errors import SettingsError
from taskscope_taskapi.settings import Settings

__all__ = ["private_folder", "signing_key"]

_LEAST_BYTES = 32


def signing_key(settings: Settings) -> bytes:
    """The key, of at least 256 bit; instances that share a state folder share it.

    Raises SettingsError when a file is readable by others, too short, or cannot be read or made.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value().encode()
    if settings.jwt_secret_file is not None:
        return _read(settings.jwt_secret_file)
    path = private_folder(settings.state_dir) / "secrets" / "jwt"
    private_folder(path.parent)
    if not path.exists():
        _make(path)
    return _read(path)


def private_folder(folder: Path, *, variable: str = "TASKAPI_STATE_DIR") -> Path:
    """`folder` exists and, if it was made here, only its owner may enter it.

    variable: the one that names it. Raises SettingsError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{variable}: {folder} cannot be made ({error.strerror}); name a folder that may be written"
        ) from error
    return folder


def _make(path: Path) -> None:
    """Another instance may do the same now: a link never replaces, so the first whole file wins."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_LEAST_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                return
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"TASKAPI_STATE_DIR: {path} cannot be made ({error.strerror}); name a folder that may be written"
        ) from error


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SettingsError(
            f"TASKAPI_JWT_SECRET_FILE: {path} cannot be read ({error.strerror}); "
            "name a plain file of mode 0600 that this user owns"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        # A group may read it: that is how Kubernetes hands a secret to a process that is not root.
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o027:
            raise SettingsError(
                f"TASKAPI_JWT_SECRET_FILE: {path} is open to other users; run: chmod 600 {path}"
            )
        if status.st_uid not in (0, os.geteuid()):
            raise SettingsError(
                f"TASKAPI_JWT_SECRET_FILE: {path} belongs to another user; name a file that this user owns"
            )
        key = file.read(4096).strip()
    if len(key) < _LEAST_BYTES:
        raise SettingsError(
            f"TASKAPI_JWT_SECRET_FILE: {path} holds {len(key)} bytes; write at least {_LEAST_BYTES} random ones"
        )
    return key
