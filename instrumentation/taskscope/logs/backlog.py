"""What waits in a spool to be shipped: its bytes, and how long the oldest line has waited."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskscope.logs.disk import MACHINE, Disk
from taskscope.logs.files import acknowledged, open_segment, segment_names, written_at

__all__ = ["Backlog", "Pending", "pending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What is not shipped yet: its bytes, and the age of its oldest line in seconds (0 when there is none)."""

    bytes: int
    oldest_s: float


def pending(folder: Path, *, now: float) -> Pending:
    """What the folder holds that is not acknowledged; now: seconds since 1970. Never raises OSError."""
    waiting = _waiting(MACHINE, str(folder))
    oldest = min((each.since for each in waiting), default=now)
    return Pending(bytes=sum(each.bytes for each in waiting), oldest_s=max(0.0, now - oldest))


class Backlog:
    """Looks at what waits, again and again: once it has seen a line, the line's age grows as time does, whatever
    the clock is set to."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        disk: Disk = MACHINE,
    ) -> None:
        self._folder = str(folder)
        self._now = now
        self._monotonic = monotonic
        self._disk = disk
        self._since: dict[tuple[str, int], float] = {}

    def look(self) -> Pending:
        """What the folder holds now that is not acknowledged. Never raises OSError."""
        waiting = _waiting(self._disk, self._folder)
        now, moment = self._now(), self._monotonic()
        self._since = {
            (each.segment, each.offset): self._since.get(
                (each.segment, each.offset), moment - max(0.0, now - each.since)
            )
            for each in waiting
        }
        oldest = min(self._since.values(), default=moment)
        return Pending(bytes=sum(each.bytes for each in waiting), oldest_s=moment - oldest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """What waits in one segment. since: when its first line was logged, by the clock of its writer."""

    segment: str
    offset: int
    bytes: int
    since: float


def _waiting(disk: Disk, folder: str) -> list[_Waiting]:
    try:
        names = segment_names(disk, folder)
    except OSError:
        return []
    found = []
    for name in names:
        try:
            fd = open_segment(disk, folder, name)
        except OSError:
            continue  # removed meanwhile, or not ours: the reader sets it aside
        try:
            offset = acknowledged(disk, folder, name, fd)
            rest = disk.fstat(fd).st_size - offset
            if rest > 0:
                since = written_at(disk.pread(fd, 64, offset), name)
                found.append(_Waiting(segment=name, offset=offset, bytes=rest, since=since))
        except OSError:
            continue
        finally:
            disk.close(fd)
    return found
