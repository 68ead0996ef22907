"""One file of lines: begun, brought to disk, and what to do when the disk says that it could not.

After a failed sync the kernel may count the pages as written though they are not, so that a second try reports a
success that is none. The failed segment gets no more lines. What it holds is read again, while the system still
has it in memory, and written to a file of its own that takes the segment's place: under the same name at the same
offsets, so that each line keeps its id.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass
from typing import Final

from taskscope.logs.disk import Disk
from taskscope.logs.folder import Names
from taskscope.logs.names import DRAFT

__all__ = ["Segment", "begin", "bring", "completed", "is_ours", "nowhere", "rescue"]

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK: Final = 1024 * 1024


@dataclass(slots=True, eq=False)
class Segment:
    """A file that this process writes; without a descriptor (-1) there is none.

    limit: bytes at which the next is begun. end: bytes written. synced: of those, what is on disk.
    named: whether its name is on disk. retired: whether it gets no more lines.
    """

    name: str
    fd: int
    limit: int = 0
    inode: int = 0
    end: int = 0
    synced: int = 0
    named: bool = False
    retired: bool = False


def nowhere() -> Segment:
    """Where no line can go."""
    return Segment(name="", fd=-1)


def begin(disk: Disk, folder: str, name: str, *, limit: int) -> Segment:
    """A new segment: it is locked before it gets the name by which readers find it. Raises OSError."""
    path = f"{folder}/{name}"
    try:
        fd = disk.open(path + DRAFT, _NEW, 0o600)
    except FileNotFoundError:  # somebody has removed the folder
        disk.mkdir(folder, 0o700)
        fd = disk.open(path + DRAFT, _NEW, 0o600)
    try:
        disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        inode = disk.fstat(fd).st_ino
        disk.rename(path + DRAFT, path)
    except OSError:
        disk.close(fd)
        with contextlib.suppress(OSError):
            disk.unlink(path + DRAFT)
        raise
    return Segment(name=name, fd=fd, limit=limit, inode=inode)


def is_ours(disk: Disk, segment: Segment) -> bool:
    """Whether the segment still is the file that was begun; a descriptor that is another's is forgotten."""
    try:
        found = disk.fstat(segment.fd)
    except OSError:
        segment.fd = -1  # closed by somebody: the number may be anything's by now
        return False
    if found.st_ino != segment.inode:
        segment.fd = -1
        return False
    return found.st_nlink > 0


def completed(disk: Disk, segment: Segment, line: bytes, written: int) -> None:
    """The rest of a line of which `written` bytes are in the file is there too. Raises OSError: then none of it is,
    or half a line at the very end, which a reader drops."""
    end = segment.end
    if disk.fstat(segment.fd).st_size != end + written:
        raise OSError(errno.EIO, "another line came into the middle of one")
    try:
        _write_all(disk, segment.fd, line[written:])
    except OSError:
        with contextlib.suppress(OSError):
            disk.ftruncate(segment.fd, end)
        raise


def bring(disk: Disk, names: Names, segment: Segment, end: int) -> None:
    """The segment's bytes up to `end`, and its name, are on disk. Raises OSError: then nothing is known of them."""
    if end > segment.synced:
        disk.fdatasync(segment.fd)
    if not segment.named:
        # Without its folder a new file is on disk, but nobody would find it after a loss of power.
        names.sync()
        segment.named = True
    segment.synced = max(segment.synced, end)


def rescue(disk: Disk, folder: str, names: Names, segment: Segment) -> None:
    """A new file with the retired segment's bytes stands under its name, and is on disk. Raises OSError: then the
    segment is as it was, which is enough unless the power fails. It is tried once, never again."""
    path = f"{folder}/{segment.name}"
    fd = disk.open(path + DRAFT, _NEW, 0o600)
    try:
        try:
            _copy(disk, segment, fd)
            disk.fdatasync(fd)
        finally:
            disk.close(fd)
        disk.rename(path + DRAFT, path)
    except OSError:
        with contextlib.suppress(OSError):
            disk.unlink(path + DRAFT)
        raise
    names.sync()
    segment.synced = segment.end


def _copy(disk: Disk, segment: Segment, to: int) -> None:
    at = 0
    while chunk := disk.pread(segment.fd, _CHUNK, at):
        at += len(chunk)
        _write_all(disk, to, chunk)
    if at < segment.end:
        raise OSError(errno.EIO, "the system has let go of what it could not write")


def _write_all(disk: Disk, fd: int, data: bytes) -> None:
    while data:
        written = disk.write(fd, data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]
