"""Ends the servers of a process that died without stopping them.

One small process beside ours reads, from a pipe, which servers we started and stopped. When we are
gone, however that came about, the pipe ends and it ends what is left. PR_SET_PDEATHSIG would not do:
it fires when the *thread* that started the server ends, and it does not reach the server's children.
This file is both sides; the watcher runs it alone, without the rest of the package.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from functools import cache

_GRACE_S = 10.0


def watch(pid: int) -> None:
    """The group led by `pid` ends when this process does; `pid` must lead a session of its own."""
    _tell(f"+{pid}\n")


def release(pid: int) -> None:
    """`pid` has ended and its number may be given to another process."""
    _tell(f"-{pid}\n")


def _tell(line: str) -> None:
    # A watcher that was killed takes nothing from a server that runs well.
    with suppress(BrokenPipeError):
        os.write(_pipe_of(os.getpid()), line.encode())


@cache
def _pipe_of(_pid: int) -> int:
    """The writing end of the watcher's pipe; one watcher a process, also after a fork."""
    reading, writing = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", __file__],
        {"PATH": os.defpath},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setsid=True,
    )
    os.close(reading)
    return writing


def main() -> None:
    """Read until the pipe ends, then end every group still watched: politely, then not."""
    os.chdir("/")
    watched: set[int] = set()
    for line in sys.stdin:
        (watched.add if line[0] == "+" else watched.discard)(int(line[1:]))
    deadline = time.monotonic() + _GRACE_S
    left = {pid for pid in watched if _signal(pid, signal.SIGTERM)}
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = {pid for pid in left if _signal(pid, signal.Signals(0))}
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
