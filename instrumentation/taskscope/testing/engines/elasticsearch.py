"""Elasticsearch on loopback with security on: nobody reads a line without a password.

Users and roles are files, so that they exist before the first request and hold no default.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskscope.errors import EngineError
from taskscope.testing.engines import distribution, jdk
from taskscope.testing.engines.place import enterable, origin_of, place
from taskscope.testing.engines.spec import (
    HOST,
    HttpReady,
    Missing,
    Spec,
    clean_env,
    unprivileged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

REMEDY = "python -m taskscope.testing.engines --install"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_ROUNDS = 10_000
_BYTES = 32
# Java's own refusal of a flag, or an exception; not the farewells that follow each.
_COMPLAINT = r"^(?!.*(Caused by|node closed|Program will exit)).*(Exception: |Invalid |ERROR: (?!Elasticsearch))"
_LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.start.name = org.elasticsearch.node
logger.start.level = info
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EsRole:
    """What a user may do: cluster privileges, and privileges on the indices that match patterns."""

    name: str
    indices: tuple[str, ...] = ()
    privileges: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()

    def line(self) -> str:
        """The role as one line of roles.yml, which the server cuts at each line that is not indented."""
        granted = [{"names": self.indices, "privileges": self.privileges}] if self.indices else []
        return f"{self.name}: {json.dumps({'cluster': self.cluster, 'indices': granted})}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EsUser:
    """A user of the file realm and its one role."""

    name: str
    password: str
    role: EsRole

    def __repr__(self) -> str:
        return f"EsUser(name={self.name!r}, role={self.role.name!r})"


#: May add documents to log streams, and open a stream that a template allows; reads and deletes nothing.
SHIPPER = EsRole(name="shipper", indices=("logs-*",), privileges=("create_doc", "auto_configure"))
#: May search log streams, and ask how many lines each shard of them holds.
READER = EsRole(
    name="reader", indices=("logs-*",), privileges=("read", "view_index_metadata", "monitor")
)
#: May do everything; for setting up templates, never for a service. It is built in.
ADMIN = EsRole(name="superuser")


def find() -> Path | None:
    """The home of the version that the JDK found here decides, None until it was installed."""
    java = jdk.find()
    if java is None:
        return None
    home = distribution.home_of(distribution.default_cache(), distribution.version_for(java))
    return home if home.is_dir() else None


def installed(cache: Path | None = None) -> bool:
    """Whether `elasticsearch` can describe a server without fetching anything."""
    java = jdk.find()
    if java is None:
        return False
    cache = cache or distribution.default_cache()
    return distribution.home_of(cache, distribution.version_for(java)).is_dir()


def elasticsearch(
    folder: Path,
    *,
    port: int,
    transport_port: int,
    users: Sequence[EsUser],
    cache: Path | None = None,
    java: jdk.Jdk | None = None,
    heap_mb: int = 512,
    settings: Mapping[str, str] | None = None,
) -> Spec:
    """One node that answers `users` on `port` and keeps its data in `folder`.

    transport_port: no other node ever comes, but the server insists on one. cache, java: where
    `distribution.prepare` was told otherwise than its defaults. settings: keys of
    elasticsearch.yml on top. Raises Missing until it was installed.
    """
    java = java or jdk.find()
    if java is None:
        raise Missing(f"elasticsearch needs a JDK of 17 or newer; run: {jdk.REMEDY}")
    cache = cache or distribution.default_cache()
    version = distribution.version_for(java)
    home = distribution.home_of(cache, version)
    if not home.is_dir():
        raise Missing(f"elasticsearch {version} was not fetched yet; run: {REMEDY}")
    owner = unprivileged()
    if owner and not enterable(home):
        raise EngineError(f"elasticsearch: {home} is closed to uid {owner.uid}; use {REMEDY}")
    cwd = place(folder, owner)
    config, temporary = cwd / "config", cwd / "tmp"
    return Spec(
        name="elasticsearch",
        argv=("/bin/bash", str(home / "bin" / "elasticsearch")),
        cwd=cwd,
        folders=(config / "jvm.options.d", cwd / "data", cwd / "logs", temporary),
        files={
            config / "elasticsearch.yml": _yml(cwd, port, transport_port, settings or {}),
            config / "jvm.options": _jvm_options(heap_mb),
            config / "log4j2.properties": _LOG4J,
            **{config / name: text for name, text in realm(users).items()},
            **origin_of(folder, cwd),
        },
        env=clean_env(
            cwd,
            ES_JAVA_HOME=str(java.home),
            ES_PATH_CONF=str(config),
            ES_TMPDIR=str(temporary),
        ),
        ports=(port, transport_port),
        # 401 is the answer of a node that is up and, rightly, tells us nothing.
        ready=HttpReady(url=f"http://{HOST}:{port}/_cluster/health", statuses=(200, 401)),
        owner=owner,
        stop_grace_s=30,
        start_timeout_s=120,
        complaint=_COMPLAINT,
    )


def realm(users: Sequence[EsUser]) -> dict[str, str]:
    """The four files of the file realm, by name. Raises EngineError for a name with a colon or space."""
    for name in (name for user in users for name in (user.name, user.role.name)):
        if not _NAME.fullmatch(name):
            raise EngineError(
                f"elasticsearch: name {name!r}; use letters, digits, `.`, `_` and `-`"
            )
    roles = {user.role.name: user.role for user in users}
    members = {
        role: ",".join(user.name for user in users if user.role.name == role) for role in roles
    }
    return {
        "users": "".join(f"{user.name}:{hashed(user.password)}\n" for user in users),
        "users_roles": "".join(f"{role}:{names}\n" for role, names in members.items()),
        "roles.yml": "".join(role.line() for role in roles.values() if role != ADMIN),
        "role_mapping.yml": "",
    }


def hashed(password: str, salt: bytes | None = None) -> str:
    """`password` as the file realm stores it; the server's own tool needs a JVM for the same."""
    salt = salt or secrets.token_bytes(_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS, _BYTES)
    salt_text, digest_text = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{{PBKDF2}}{_ROUNDS}${salt_text}${digest_text}"


def _yml(folder: Path, port: int, transport_port: int, more: Mapping[str, str]) -> str:
    settings = {
        "cluster.name": "taskscope",
        "node.name": "taskscope",
        "discovery.type": "single-node",
        "network.host": HOST,
        "http.port": str(port),
        "transport.port": str(transport_port),
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "xpack.security.enabled": "true",
        "xpack.security.http.ssl.enabled": "false",
        "xpack.security.transport.ssl.enabled": "false",
        # By free space: a laptop's disk that is 90 % full still has room for logs.
        "cluster.routing.allocation.disk.watermark.low": "2gb",
        "cluster.routing.allocation.disk.watermark.high": "1gb",
        "cluster.routing.allocation.disk.watermark.flood_stage": "500mb",
        **more,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())


def _jvm_options(heap_mb: int) -> str:
    options = (
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # half the start, and a node for one machine is never hot
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-HeapDumpOnOutOfMemoryError",
        "-Djava.io.tmpdir=${ES_TMPDIR}",
    )
    return "".join(f"{option}\n" for option in options)
