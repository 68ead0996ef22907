"""The level and the sample that hold for a while: a small file in the spool's folder that all workers look at.

Written beside and renamed, so it is found whole or not at all; what is no change that we would have written is none.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

__all__ = ["LEVELS", "LONGEST_S", "Change", "Mark", "looked_at", "read", "write"]

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LONGEST_S: Final = 86_400.0
"""The longest that a change may hold."""

Mark: TypeAlias = tuple[int, int, int]
"""What tells one state of the file from another."""

_NAME: Final = "logging.json"
_MOST_BYTES: Final = 1024
_BY_CHARS: Final = 64
_NONE: Final[Mark] = (0, 0, 0)


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds instead of the settings. until: seconds since 1970; in the past it is over. by: who asked."""

    level: str
    sample: float
    until: float
    by: str

    def fault(self) -> str:
        """What is wrong with it, in one sentence; empty if nothing is."""
        if self.level not in LEVELS:
            return f"level: {self.level[:20]!r} is none; take one of {', '.join(LEVELS)}"
        if not 0.0 <= self.sample <= 1.0:
            return f"sample: {self.sample} is no share; take one from 0 to 1"
        return ""


def write(folder: Path, change: Change) -> None:
    """The folder's change is this one. Raises OSError."""
    draft = folder / f".{_NAME}.{os.getpid()}"
    with suppress(FileNotFoundError):
        draft.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(draft, flags, 0o600)
    try:
        os.write(fd, msgspec.json.encode(msgspec.structs.replace(change, by=change.by[:_BY_CHARS])))
    finally:
        os.close(fd)
    draft.replace(folder / _NAME)


def looked_at(folder: Path) -> Mark:
    """The file's state now, as one call to the system tells it."""
    try:
        found = (folder / _NAME).lstat()
    except OSError:
        return _NONE
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def read(folder: Path) -> Change | None:
    """The folder's change; None if there is none, or one that nobody of this user has written well."""
    try:
        fd = os.open(folder / _NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        change = msgspec.json.decode(os.read(fd, _MOST_BYTES), type=Change)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    finally:
        os.close(fd)
    return None if change.fault() else change
