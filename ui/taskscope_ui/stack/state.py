"""`run/stack.json`: what runs in a stack's folder, for the next start, `taskscope doctor` and `taskscope fault`.

The folder's lock says whether a stack runs; the file says of what it is made.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from taskscope.errors import EngineError
from taskscope_ui.stack.credentials import private_folder
from taskscope_ui.stack.processes import Group, began, boot, end_groups, members, runs

__all__ = ["PartRecord", "StackState", "clear_leftovers", "hold", "read", "write"]

_FILE: Final = Path("run/stack.json")
_LOCK: Final = Path("run/lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part as the file keeps it. began: tells this process from a later one of the same pid.
    started: its start in seconds since 1970, as psutil tells it.

    phase: a word of `Phase`, or `absent`. url: what a person opens. log: the file that takes its output.
    remedy: the command that would bring an absent part.
    """

    name: str
    what: str = ""
    phase: str
    detail: str = ""
    remedy: str = ""
    pid: int = 0
    began: int = 0
    started: float = 0.0
    url: str = ""
    port: int = 0
    log: str = ""
    stop_signal: int = 15
    grace_s: float = 10.0

    @property
    def runs(self) -> bool:
        """Whether its process lives now."""
        return runs(self.pid, self.began)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """A stack at its last change. pid, began: the supervisor's. boot: the machine's start it belongs to.

    addresses: the name of a part, or `api` for the front door, to its URL. traffic_control: the file by which
    the running traffic is told its rate and faults.
    """

    pid: int
    began: int
    boot: str
    project: str
    traffic_control: str
    spool: str
    parts: tuple[PartRecord, ...]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether the supervisor lives now."""
        return self.boot == boot() and runs(self.pid, self.began)

    def part(self, name: str) -> PartRecord | None:
        """The part of that name, None if the stack has none."""
        return next((part for part in self.parts if part.name == name), None)


def write(folder: Path, state: StackState) -> None:
    """The file holds `state`, whole at every moment. Raises EngineError when it cannot be written."""
    path = folder / _FILE
    private_folder(path.parent)
    beside = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)
        beside.replace(path)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be written: {error.strerror}; free the disk, or name another folder with --folder"
        ) from error


def read(folder: Path) -> StackState | None:
    """The state in `folder`, None where no stack was started. Raises EngineError for a file that is not ours."""
    path = folder / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise EngineError(f"{folder} is not a folder; name another with --folder") from error
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}; run as its owner") from error
    except msgspec.MsgspecError as error:
        raise EngineError(
            f"{path} is not a stack's state; remove it and run taskscope up"
        ) from error


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """The folder belongs to this process inside the block; the system frees it however the process ends.

    Raises EngineError when another stack runs there.
    """
    private_folder(folder)
    path = private_folder((folder / _LOCK).parent) / _LOCK.name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be used: {error.strerror}; remove it, or name another folder with --folder"
        ) from error
    with os.fdopen(fd, "r+", encoding="ascii") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read().strip() or "unknown"
            raise EngineError(
                f"{folder} is in use by another taskscope up, pid {pid}; "
                "stop that one, or name another folder with --folder"
            ) from None
        file.truncate(0)
        with suppress(
            OSError
        ):  # on a full disk the lock holds all the same, and what comes next says it
            os.write(fd, str(os.getpid()).encode())
        yield
        file.truncate(0)


def clear_leftovers(folder: Path) -> tuple[str, ...]:
    """The parts of an earlier stack that still ran were ended; their names are returned.

    A state that cannot be read is left aside: it must not keep the next start from running.
    """
    try:
        state = read(folder)
    except EngineError:
        return ()
    if state is None or state.boot != boot():
        return ()
    groups = {
        part.name: Group(
            pid=part.pid, began=part.began, stop_signal=part.stop_signal, grace_s=part.grace_s
        )
        for part in state.parts
        if part.pid
    }
    left = {name: group for name, group in groups.items() if members(group)}
    end_groups(left.values())
    return tuple(left)


def of_this_process() -> dict[str, Any]:
    """The fields of StackState that name the process that asks."""
    return {"pid": os.getpid(), "began": began(os.getpid()), "boot": boot()}
