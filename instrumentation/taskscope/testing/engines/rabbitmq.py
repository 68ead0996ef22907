"""RabbitMQ on loopback, a node of its own with a user of its own; nobody else, guest included, gets in.

Erlang nodes find each other through a daemon, epmd, that the first of them starts for the whole machine, on all
its addresses, and leaves behind. This node brings its own, on a port of the loopback, and takes it along.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from taskscope.testing.engines.place import origin_of, place
from taskscope.testing.engines.spec import (
    HOST,
    LogReady,
    Spec,
    clean_env,
    find_binary,
    new_password,
    required,
    unprivileged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEDY = "apt-get install rabbitmq-server"
_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_NODE = "taskscope@localhost"
_SERVER = Path("sbin") / "rabbitmq-server"
_ERLANG = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
# A faulty configuration is told line by line, and then once more as a name without the fault.
_COMPLAINT = (
    r"- Error |ERROR: |^error: |Error during startup: (?!\{error,failed_to_prepare_configuration)"
)
# epmd joins the group that the server leads, so that whatever ends the group ends it too.
_SCRIPT = """\
server=$1
epmd -relaxed_command_check &
tries=0
until epmd -names >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ $tries -ge 100 ]; then echo "error: epmd does not answer on port $ERL_EPMD_PORT"; exit 1; fi
  sleep 0.05
done
exec "$server"
"""


def find() -> Path | None:
    """The server's home, whose name bears its version; asking the server for it would start one."""
    # What Debian puts on PATH changes to the account and the folders of the system's own server.
    found = _DEBIAN if _DEBIAN.exists() else find_binary("rabbitmq-server")
    home = found.resolve().parents[1] if found else None
    return home if home and (home / _SERVER).is_file() else None


def rabbitmq(
    folder: Path,
    *,
    port: int,
    internal_ports: tuple[int, int],
    password: str,
    user: str = "taskscope",
    settings: Mapping[str, str] | None = None,
) -> Spec:
    """A node with one `user`, who may do everything in the virtual host `/` and administers nothing.

    internal_ports: where the node and its epmd listen for other nodes; none ever comes. settings: lines of
    rabbitmq.conf on top, such as {"channel_max": "64"}. The user's password is `password` from this start on,
    whatever an earlier one set. Raises Missing.
    """
    home = required("rabbitmq", find(), REMEDY)
    owner = unprivileged("rabbitmq")
    cwd = place(folder, owner)
    names_port, node_port = internal_ports
    lines = {
        "listeners.tcp.1": f"{HOST}:{port}",
        "load_definitions": str(cwd / "definitions.json"),
        "log.console": "true",
        "log.console.level": "info",
        "log.file": "false",
        **(settings or {}),
    }
    return Spec(
        name="rabbitmq",
        argv=("/bin/sh", "-euc", _SCRIPT, "sh", str(home / _SERVER)),
        cwd=cwd,
        folders=(cwd / "data", cwd / "logs"),
        files={
            cwd / "rabbitmq.conf": "".join(f"{key} = {value}\n" for key, value in lines.items()),
            cwd / "definitions.json": _definitions(user, password),
            cwd / ".erlang.cookie": new_password(),
            **origin_of(folder, cwd),
        },
        env=clean_env(
            cwd,
            ERL_CRASH_DUMP_SECONDS="0",
            ERL_EPMD_ADDRESS=HOST,
            ERL_EPMD_PORT=str(names_port),
            RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_CONFIG_FILE=str(cwd / "rabbitmq.conf"),
            RABBITMQ_DIST_PORT=str(node_port),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(cwd / "enabled_plugins"),
            RABBITMQ_LOGS="-",
            RABBITMQ_LOG_BASE=str(cwd / "logs"),
            RABBITMQ_MNESIA_BASE=str(cwd / "data"),
            RABBITMQ_NODENAME=_NODE,
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=_ERLANG,
            RUNNING_UNDER_SYSTEMD="1",  # the script then becomes the server, and signals reach it
        ),
        ports=(port, names_port, node_port),
        ready=LogReady(text="Server startup complete"),
        owner=owner,
        stop_grace_s=20,
        start_timeout_s=60,
        complaint=_COMPLAINT,
    )


def url(*, port: int, password: str, user: str = "taskscope") -> str:
    """The address under which a client finds it."""
    return f"amqp://{user}:{quote(password, safe='')}@{HOST}:{port}/"


def _definitions(user: str, password: str) -> str:
    """What the node loads at each start; where it is given one, it makes no default user."""
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return json.dumps(
        {
            "users": [
                {
                    "name": user,
                    "password_hash": base64.b64encode(salt + digest).decode(),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": [],
                }
            ],
            "vhosts": [{"name": "/"}],
            "permissions": [
                {"user": user, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
            ],
        }
    )
