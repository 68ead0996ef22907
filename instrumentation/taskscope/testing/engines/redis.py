"""Redis on loopback, with a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscope.testing.engines.place import origin_of, place
from taskscope.testing.engines.spec import (
    HOST,
    LogReady,
    Spec,
    clean_env,
    find_binary,
    required,
    unprivileged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REMEDY = "apt-get install redis-server"


def find() -> Path | None:
    """The server's binary."""
    return find_binary("redis-server")


def redis(
    folder: Path, *, port: int, password: str, settings: Mapping[str, str] | None = None
) -> Spec:
    """Redis that keeps nothing on disk and asks for `password` (no spaces, no quotes).

    settings: lines of redis.conf on top, such as {"maxmemory": "64mb"}. Raises Missing.
    """
    binary = required("redis", find(), REMEDY)
    owner = unprivileged("redis")
    cwd = place(folder, owner)
    lines = {
        "bind": HOST,
        "port": str(port),
        "requirepass": password,
        "dir": str(cwd),
        "daemonize": "no",
        "save": '""',
        "appendonly": "no",
        **(settings or {}),
    }
    conf = cwd / "redis.conf"
    text = "".join(f"{key} {value}\n" for key, value in lines.items())
    return Spec(
        name="redis",
        argv=(str(binary), str(conf)),
        cwd=cwd,
        files={conf: text, **origin_of(folder, cwd)},
        env=clean_env(cwd),
        ports=(port,),
        ready=LogReady(text="Ready to accept connections"),
        owner=owner,
        complaint=r"(?!)",  # it gives the reason in its last line, whatever stands above
    )


def url(*, port: int, password: str, database: int = 0) -> str:
    """The address under which a client finds it."""
    return f"redis://:{password}@{HOST}:{port}/{database}"
