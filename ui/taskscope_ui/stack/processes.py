"""Process groups: who is in one, and how it ends so that nothing of it is left.

Each part leads a session of its own, so its group holds the part and all it started.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

__all__ = ["Group", "began", "boot", "end_groups", "holder", "listens", "members", "runs"]

_POLL_S: Final = 0.05
_KILL_WAIT_S: Final = 5.0
_PROC: Final = Path("/proc/self/stat")
_STARTTIME: Final = 19  # field 22 of /proc/PID/stat, counted after the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group to end: its leader's pid and start, the polite signal and the seconds until the other one."""

    pid: int
    began: int
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0


def began(pid: int) -> int:
    """When process `pid` began, 0 if there is none: with the pid it names one process of one boot.

    Clock ticks since boot on Linux, where a stepped wall clock must not make a process look like another.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(text.rpartition(")")[2].split()[_STARTTIME])
    except OSError:
        if _PROC.exists():
            return 0
    try:
        return round(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return 0


def boot() -> str:
    """A word that changes when the machine starts anew, and every pid with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time()))


def runs(pid: int, since: int) -> bool:
    """Whether `pid` is still the process that began then, not another with its number."""
    return pid > 0 and since > 0 and began(pid) == since and not _zombie(pid)


def members(group: Group) -> tuple[int, ...]:
    """The pids that live in the group; a zombie has ended and does not count.

    Empty when the leader's number now belongs to a process that began at another time: the kernel gives a
    number away only once its group is empty.
    """
    start = began(group.pid)
    if start and start != group.began:
        return ()
    return tuple(pid for pid in psutil.pids() if _group_of(pid) == group.pid and not _zombie(pid))


def end_groups(groups: Iterable[Group]) -> None:
    """All the groups were asked to end, given their grace, and have no member any more."""
    asked = time.monotonic()
    left = [group for group in groups if members(group)]
    for group in left:
        _signal(group.pid, group.stop_signal)
    while left := [group for group in left if members(group)]:
        over = [group for group in left if time.monotonic() - asked > group.grace_s]
        for group in over:
            _signal(group.pid, signal.SIGKILL)
        if over and all(time.monotonic() - asked > group.grace_s + _KILL_WAIT_S for group in left):
            return  # held by the kernel (a dead disk); the caller's list of what is left will name it
        time.sleep(_POLL_S)


def listens(group: Group, port: int) -> bool:
    """Whether a process of the group listens on `port`; also true where the system does not tell."""
    for pid in members(group):
        try:
            found = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except psutil.Error:
            return True
        for connection in found:
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return True
    return False


def holder(port: int) -> str:
    """Who listens on `port`, as `pid 42 (name)`; "another process" where the system does not tell."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({_name(connection.pid)})"
    return "another process"


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "unknown"


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
