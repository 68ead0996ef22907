"""What a server is before it runs: words, files, ports and the sign that it is ready.

Everything here is a value or makes one. Whoever runs it (`launch`, or a supervisor of its own) needs
nothing but the `Spec`: it may be printed, compared and built without starting anything.
"""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from taskscope.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # nginx lives there, and a plain user's PATH lacks it
_PATH = f"/usr/local/bin:/usr/bin:/bin:{_SBIN}"
# Below the kernel's range for outgoing connections, so that none of them takes a port before its server does.
_PORTS = (18_000, 32_000)
# Go (`level=error`, `panic:`), nginx (`[emerg]`), PostgreSQL (`FATAL:`), Redis and Java say it so.
_COMPLAINT = r"(?i)(\b(error|fatal|emerg|panic)\b|exception:|can't|could not)"


class Missing(EngineError):  # noqa: N818 - reads as it is meant: `except Missing`
    """For whoever starts a server that is not installed; its text ends with the command that installs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The account a server drops to when root starts it."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReady:
    """Ready once `url` answers one of `statuses`."""

    url: str
    statuses: tuple[int, ...] = (200,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpReady:
    """Ready once loopback `port` takes a connection."""

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReady:
    """Ready once the server's output holds `text`."""

    text: str


Ready: TypeAlias = HttpReady | TcpReady | LogReady


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One server that can be run as often as wished: `cwd` is its folder and belongs to it alone.

    env is the whole environment, not an addition. files are written before each start, readable by
    the owner alone; folders are made so. ports must be free at the start. complaint is the pattern
    of the line by which this server says why it gave up. Secrets stand in files and env, which a
    printed Spec leaves out.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    ready: Ready
    ports: tuple[int, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[Path, str | bytes] = field(default_factory=dict, repr=False)
    folders: tuple[Path, ...] = ()
    owner: Owner | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0
    start_timeout_s: float = 30.0
    complaint: str = _COMPLAINT

    @property
    def log(self) -> Path:
        """The file that takes the server's output."""
        return self.cwd / f"{self.name}.log"


def unprivileged(*accounts: str) -> Owner | None:
    """The first of `accounts` that exists here, else nobody; None unless we are root."""
    if os.geteuid() != 0:
        return None
    for account in accounts:
        try:
            entry = pwd.getpwnam(account)
        except KeyError:
            continue
        return Owner(uid=entry.pw_uid, gid=entry.pw_gid)
    return Owner(uid=65_534, gid=65_534)


def clean_env(home: Path, **more: str) -> dict[str, str]:
    """An environment that carries nothing of ours (no secret, no proxy) but `more`."""
    return {"PATH": _PATH, "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC", **more}


def find_binary(*names: str) -> Path | None:
    """The first of `names` that is on PATH or in an sbin folder."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SBIN))
    found = (shutil.which(name, path=path) for name in names)
    return next((Path(binary) for binary in found if binary), None)


def required(engine: str, found: Path | None, remedy: str) -> Path:
    """`found`, or Missing with the remedy."""
    if found is None:
        raise Missing(f"{engine} is not installed; run: {remedy}")
    return found


def new_password() -> str:
    """192 random bits in letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(24)


def taken(port: int) -> bool:
    """Whether something listens on loopback `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def free_ports(count: int) -> tuple[int, ...]:
    """`count` different loopback ports on which nothing listens.

    They are not reserved: a port that is taken before its server starts is named by that start.
    """
    candidates = random.SystemRandom().sample(range(*_PORTS), k=min(2_000, 50 + 20 * count))
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if not taken(port):
            ports.append(port)
    if len(ports) < count:
        low, high = _PORTS
        raise EngineError(f"ports {low} to {high}: fewer than {count} free; stop some servers")
    return tuple(ports)


def free_port() -> int:
    """One loopback port on which nothing listens."""
    return free_ports(1)[0]
