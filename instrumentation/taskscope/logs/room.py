"""How much may still be written: the spool's bound and the disk's end, each with a reserve for what matters most."""

from __future__ import annotations

import errno
import math
import os
from enum import Enum
from typing import Final

from taskscope.logs.disk import Disk

__all__ = ["ERRORS", "USUAL", "WARNINGS", "Room", "Written", "folder_bytes", "reason"]

USUAL: Final = 0
WARNINGS: Final = 1
ERRORS: Final = 2

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_RESERVE: Final = 1024 * 1024
# Between two looks at the room a process writes no more than this: so far may each go beyond the bound.
_STEP: Final = 64 * 1024
_MEASURE_S: Final = 1.0
_MARKS: Final = (".seg", ".ndjson")
"""Segments, of whatever format, and the shipper's dead letters: what cannot be stored for good fills a disk too."""


class Written(Enum):
    """What became of a line; the values of the others are reasons of `taskscope.logs.dropped`."""

    STORED = "stored"
    SPOOL_FULL = "spool_full"
    DISK_FULL = "disk_full"
    WRITE_ERROR = "write_error"


def reason(error: OSError) -> Written:
    """Why a line was not written."""
    return Written.DISK_FULL if error.errno in _FULL else Written.WRITE_ERROR


class Room:
    """What one process may still write, from what it found last in the folder and on the disk.

    Lines below warning end two reserves before the bound, warnings one, errors at the bound: a reserve is 1 MiB, or
    a sixteenth of a smaller bound. At the end of the disk it is half of that, and errors are tried to the last byte.
    written, below: the bytes that this process has written since its start.
    """

    def __init__(self, disk: Disk, folder: str, *, max_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._max_bytes = max_bytes
        self._reserve = min(_RESERVE, max_bytes // 16)
        self._step = min(_STEP, max_bytes // 64)
        self.begin_again()

    def begin_again(self) -> None:
        """Nothing is known, and nothing written."""
        self._used = 0
        self._free: int | None = None
        self._disk_reserve = 0
        self._at = 0
        self._when = -math.inf

    def is_old(self, now: float, *, spared: float = 0.0) -> bool:
        """Whether what is known is a second old, and `spared` seconds more."""
        return now >= self._when + _MEASURE_S + spared

    def grew(self, written: int) -> bool:
        """Whether something was written since the last look."""
        return written > self._at

    def look(self, now: float, written: int) -> None:
        """What all processes have written is known as of now, and what the disk has left. Never raises OSError."""
        used = folder_bytes(self._disk, self._folder)
        free, reserve = self._disk_free()
        self._used, self._free, self._disk_reserve = used, free, reserve
        self._at, self._when = written, now

    def refusal(self, size: int, urgency: int, written: int) -> Written | None:
        """Why a line of that size and urgency has no room, or None if it has."""
        since = written - self._at
        if size > self._spool_left(urgency) - since:
            return Written.SPOOL_FULL
        if self._free is not None and urgency < ERRORS and size > self._disk_left(urgency) - since:
            return Written.DISK_FULL
        return None

    def step(self, written: int) -> int:
        """How many bytes of usual lines may be written before the next look at this room; below zero if none."""
        left = self._spool_left(USUAL)
        if self._free is not None:
            left = min(left, self._disk_left(USUAL))
        return min(self._step, left - (written - self._at))

    def _spool_left(self, urgency: int) -> int:
        return self._max_bytes - (ERRORS - urgency) * self._reserve - self._used

    def _disk_left(self, urgency: int) -> int:
        return (self._free or 0) - (ERRORS - urgency) * self._disk_reserve

    def _disk_free(self) -> tuple[int | None, int]:
        try:
            found = self._disk.statvfs(self._folder)
        except OSError:
            return None, 0
        if not found.f_blocks:
            return None, 0  # some file systems do not count
        # What a disk keeps back for the superuser is the superuser's to use.
        blocks = found.f_bavail if os.geteuid() else found.f_bfree
        reserve = min(self._reserve // 2, found.f_blocks * found.f_frsize // 32)
        return blocks * found.f_frsize, reserve


def folder_bytes(disk: Disk, folder: str) -> int:
    """The bytes of the folder's lines, those set aside included. Never raises OSError."""
    total = 0
    for place in (folder, f"{folder}/aside"):
        try:
            names = disk.listdir(place)
        except OSError:
            continue
        for name in names:
            if any(mark in name for mark in _MARKS) and not name.endswith(".ack"):
                try:
                    total += disk.lstat(f"{place}/{name}").st_size
                except OSError:
                    continue  # the shipper has just removed it
    return total
