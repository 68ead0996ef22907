"""nginx in a folder of its own, from the same configuration file that a container mounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taskscope.errors import EngineError
from taskscope.testing.engines.place import origin_of, place
from taskscope.testing.engines.spec import (
    Spec,
    TcpReady,
    clean_env,
    find_binary,
    required,
    unprivileged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

REMEDY = "apt-get install nginx"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_HTTP = re.compile(r"^[ \t]*http[ \t\n]*\{", re.MULTILINE)
# Said once in the file we write, and refused by nginx when said twice.
_OURS = re.compile(r"^(daemon|pid|user|error_log)\s[^;]*;\n?", re.MULTILINE)


def find() -> Path | None:
    """The server's binary."""
    return find_binary("nginx")


def nginx(
    folder: Path,
    *,
    ports: Sequence[int],
    conf: Path | str,
    beside: Mapping[str, str] | None = None,
) -> Spec:
    """nginx in the foreground, whose pid, temporary files and logs stay in `folder`.

    conf: a whole nginx.conf, or what stands inside `http { }` (a file of conf.d), as a path or as
    text. beside: the files that it includes, by name. ports: those on which it listens; the first
    one tells when it is ready. Raises Missing, and EngineError for a conf that cannot be read.
    """
    binary = required("nginx", find(), REMEDY)
    owner = unprivileged("www-data", "nginx")
    cwd = place(folder, owner)
    text = conf if isinstance(conf, str) else _read(conf)
    file = cwd / "nginx.conf"
    return Spec(
        name="nginx",
        argv=(str(binary), "-p", f"{cwd}/", "-c", str(file), "-e", "stderr"),
        cwd=cwd,
        folders=(cwd / "temporary",),
        files={
            file: main_conf(text, cwd),
            **{cwd / name: included for name, included in (beside or {}).items()},
            **origin_of(folder, cwd),
        },
        env=clean_env(cwd),
        ports=tuple(ports),
        ready=TcpReady(port=ports[0]),
        owner=owner,
        complaint=r"\[(emerg|alert|crit)\]",
    )


def main_conf(text: str, folder: Path) -> str:
    """A whole nginx.conf around or out of `text` that writes nowhere but in `folder`."""
    text = text if _HTTP.search(text) else f"events {{ }}\nhttp {{\n{text}\n}}\n"
    local = [f"{kind}_temp_path {folder}/temporary/{kind};" for kind in _TEMPORARY]
    if "access_log" not in text:
        local.append("access_log off;")  # the default is a file under /var/log, closed to us
    opened = _HTTP.sub(lambda found: "\n    ".join((found[0], *local)), text, count=1)
    head = f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\n"
    return head + _OURS.sub("", opened)


def _read(conf: Path) -> str:
    try:
        return conf.read_text()
    except OSError as error:
        raise EngineError(
            f"nginx: {conf}: {error.strerror}; give a configuration file that can be read"
        ) from error
