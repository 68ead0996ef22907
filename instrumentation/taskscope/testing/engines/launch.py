"""Runs a `Spec`: started, waited for, stopped, and never left behind."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

from taskscope.errors import EngineError
from taskscope.testing.engines import guard
from taskscope.testing.engines.place import lay_out, open_log
from taskscope.testing.engines.spec import HOST, HttpReady, LogReady, Ready, Spec, TcpReady, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_S = 0.05
_PROBE_S = 2.0
_KILL_S = 10.0
_KILL_POLL_S = 0.01
_TAIL_BYTES = 64 * 1024
_THREADS = 17


class ProcessOptions(TypedDict):
    """Keyword arguments for subprocess.Popen and anyio.open_process alike."""

    cwd: Path
    env: dict[str, str]
    start_new_session: bool
    user: int | None
    group: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that came up. Its group is `pid`: the server and all it started."""

    spec: Spec
    process: subprocess.Popen[bytes]
    log_start: int

    @property
    def pid(self) -> int:
        """The server's process id, which is also that of its group and session."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the server itself still runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 20) -> list[str]:
        """The last `lines` the server wrote since this start."""
        return _written(self.spec.log, self.log_start)[-lines:]

    def stop(self) -> None:
        """The server was asked to end, given its grace, and nothing of its group is left."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, self.spec.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.spec.stop_grace_s)
        self.kill()

    def kill(self) -> None:
        """The server and its group were ended at once, as a crash would."""
        deadline = time.monotonic() + _KILL_S
        while members(self.pid) and time.monotonic() < deadline:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(_KILL_POLL_S)
        try:
            self.process.wait(_KILL_S)
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{self.spec.name}: process {self.pid} outlives SIGKILL; see what disk it waits for"
            ) from error
        guard.release(self.pid)


def process_options(spec: Spec) -> ProcessOptions:
    """How a process of `spec` is made: its folder, environment, own session, and account."""
    owner = spec.owner
    return ProcessOptions(
        cwd=spec.cwd,
        env=dict(spec.env),
        start_new_session=True,
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
    )


def prepare(spec: Spec) -> None:
    """Ports are free, folders and files are there: the process may be made.

    Raises EngineError that names the port or the folder at fault.
    """
    for port in spec.ports:
        if taken(port):
            raise EngineError(
                f"{spec.name}: port {port} on {HOST} is taken; stop what listens there or give another"
            )
    lay_out(spec)


def start(spec: Spec) -> Running:
    """`spec` runs and is ready.

    Raises EngineError with the server's own complaint when it is not; nothing of it is left then.
    """
    running = _spawn(spec)
    try:
        _await_ready(running)
    except BaseException:
        running.kill()
        raise
    return running


@contextmanager
def running(spec: Spec) -> Iterator[Running]:
    """`spec` runs inside the block and nothing of it is left after."""
    server = start(spec)
    try:
        yield server
    finally:
        server.stop()


def members(group: int) -> list[int]:
    """The processes of `group` that run; one that ended and was not yet reaped does not.

    One whose first thread ended runs as long as others do: they hold its ports.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            fields = stat.read_text().rpartition(")")[2].split()
            state, its_group, threads = fields[0], int(fields[2]), int(fields[_THREADS])
            if its_group == group and (state != "Z" or threads > 1):
                found.append(int(stat.parent.name))
    return found


def is_ready(ready: Ready, log: Path, log_start: int = 0) -> bool:
    """Whether the sign of readiness shows now; takes up to two seconds.

    log_start: bytes of the log that belong to earlier runs.
    """
    match ready:
        case HttpReady(url=url, statuses=statuses):
            return _status(url) in statuses
        case TcpReady(port=port):
            return _connects(port)
        case LogReady(text=text):
            return any(text in line for line in _written(log, log_start))


def gave_up(spec: Spec, code: int | None, log_start: int = 0) -> EngineError:
    """The error for a server that exited with `code`, or with None is not ready in time."""
    lines = _written(spec.log, log_start)
    what = (
        f"not ready after {spec.start_timeout_s:g} s"
        if code is None
        else f"ended with {_meaning(code)} before it was ready"
    )
    error = EngineError(
        f"{spec.name}: {what}: {_complaint(lines, spec.complaint)}; mend that, or see {spec.log}"
    )
    error.add_note("\n".join(lines[-20:]))
    return error


def _spawn(spec: Spec) -> Running:
    prepare(spec)
    log = open_log(spec)
    try:
        log_start = os.fstat(log).st_size
        process = subprocess.Popen(
            spec.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **process_options(spec)
        )
    except OSError as error:
        raise EngineError(
            f"{spec.name}: {error.filename or spec.argv[0]}: {error.strerror}; install it anew"
        ) from error
    finally:
        os.close(log)
    guard.watch(process.pid)
    return Running(spec=spec, process=process, log_start=log_start)


def _await_ready(server: Running) -> None:
    spec = server.spec
    deadline = time.monotonic() + spec.start_timeout_s
    while not is_ready(spec.ready, spec.log, server.log_start):
        code = server.process.poll()
        if code is not None or time.monotonic() > deadline:
            raise gave_up(spec, code, server.log_start)
        time.sleep(_POLL_S)
    if (code := server.process.poll()) is not None:
        raise gave_up(spec, code, server.log_start)  # it was another server that answered


def _status(url: str) -> int | None:
    """The status of `url`, None if nothing answers; no proxy is asked for loopback."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=_PROBE_S)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


def _written(log: Path, start_at: int) -> list[str]:
    """The log's lines since byte `start_at`, at most its last 64 KiB."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start_at, end - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _meaning(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _complaint(lines: list[str], pattern: str) -> str:
    """The line that says why, else the last one."""
    said = [line.strip() for line in lines if line.strip()]
    complaints = [line for line in said if re.search(pattern, line)]
    return (complaints or said or ["it wrote nothing"])[-1][:600]
