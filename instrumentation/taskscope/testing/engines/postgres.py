"""PostgreSQL on loopback: a cluster of its own, made at the first start."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from taskscope.errors import EngineError
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

REMEDY = "apt-get install postgresql"
_DEBIAN = Path("/usr/lib/postgresql")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Made beside and moved, so that a start that was cut short leaves no half cluster. The role's password
# is set at each start: the one that was given is the one that works.
_SCRIPT = """\
umask 077
bin=$1 root=$2; shift 2
if [ ! -s "$root/data/PG_VERSION" ]; then
  rm -rf "$root/data.new" "$root/data"
  "$bin/initdb" -D "$root/data.new" -U postgres --auth=reject \\
    --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
  mv "$root/data.new" "$root/data"
fi
"$bin/postgres" --single -j -D "$root/data" -c password_encryption=scram-sha-256 postgres \\
  <"$root/role.sql" >"$root/role.log" 2>&1 || { cat "$root/role.log"; exit 1; }
if grep ERROR "$root/role.log" | grep -v 'already exists'; then exit 1; fi
exec "$bin/postgres" -D "$root/data" "$@"
"""


def find() -> Path | None:
    """The newest server's binary; Debian keeps it off PATH, beside initdb."""
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=_version)
    return versions[-1] if versions else find_binary("postgres")


def postgres(
    folder: Path,
    *,
    port: int,
    password: str,
    user: str = "taskscope",
    database: str = "taskscope",
    createdb: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Spec:
    """PostgreSQL with one login role, `user`, that owns `database` and is no superuser.

    Nobody else can log in. createdb: the role may make further databases. settings: parameters of
    the server, such as {"max_connections": "40"}. Raises Missing, and EngineError for a name that
    would need quotes.
    """
    binary = required("postgres", find(), REMEDY)
    for name in (user, database):
        if not _NAME.fullmatch(name):
            raise EngineError(f"postgres: name {name!r}; use lower-case letters, digits and _")
    owner = unprivileged("postgres")
    cwd = place(folder, owner)
    hba = cwd / "pg_hba.conf"
    parameters = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "hba_file": str(hba),
        "password_encryption": "scram-sha-256",
        **(settings or {}),
    }
    flags = [f"--{key}={value}" for key, value in parameters.items()]
    return Spec(
        name="postgres",
        argv=("/bin/sh", "-euc", _SCRIPT, "sh", str(binary.parent), str(cwd), *flags),
        cwd=cwd,
        files={
            hba: f"host all {user} {HOST}/32 scram-sha-256\n",
            cwd / "role.sql": _role(user, password, database, createdb=createdb),
            **origin_of(folder, cwd),
        },
        env=clean_env(cwd),
        ports=(port,),
        ready=LogReady(text="database system is ready to accept connections"),
        owner=owner,
        stop_signal=signal.SIGINT,  # "fast": running transactions are rolled back, not waited for
        start_timeout_s=60,
    )


def dsn(*, port: int, password: str, user: str = "taskscope", database: str = "taskscope") -> str:
    """The address under which a client finds it, `postgresql://…`."""
    return f"postgresql://{user}:{quote(password, safe='')}@{HOST}:{port}/{database}"


def _version(binary: Path) -> int:
    version = binary.parents[1].name
    return int(version) if version.isdigit() else 0


def _role(user: str, password: str, database: str, *, createdb: bool) -> str:
    """Statements for single-user mode, where an empty line ends each (`-j`)."""
    secret = password.replace("'", "''")
    return f"""\
DO $$ BEGIN
IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') THEN CREATE ROLE {user}; END IF; END $$;

ALTER ROLE {user} LOGIN {"CREATEDB" if createdb else "NOCREATEDB"} PASSWORD '{secret}';

CREATE DATABASE {database} OWNER {user};

"""
