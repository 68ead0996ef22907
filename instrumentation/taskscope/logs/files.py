"""The spool's files, looked at without trusting what stands in the folder: for whoever reads it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from datetime import datetime
from typing import Final

from taskscope.logs.disk import Disk
from taskscope.logs.names import ACKNOWLEDGED, SEGMENT_NAME, began_at

__all__ = ["acknowledged", "open_segment", "segment_names", "written_at"]

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OFFSET: Final = re.compile(rb"\d{1,18}\n\Z")
_STAMP: Final = re.compile(rb'\{"@timestamp":"([0-9T:.\-]{19,26})Z"')


def segment_names(disk: Disk, folder: str) -> list[str]:
    """The names of the folder's segments, sorted; none if it is not there. Raises OSError if it cannot be read."""
    try:
        return sorted(filter(SEGMENT_NAME.match, disk.listdir(folder)))
    except FileNotFoundError:
        return []


def open_segment(disk: Disk, folder: str, name: str) -> int:
    """A descriptor of the segment. Raises OSError unless it is a regular file of ours, reached without a link."""
    fd = disk.open(f"{folder}/{name}", _READ)
    try:
        found = disk.fstat(fd)
        ours = {os.geteuid(), disk.lstat(folder).st_uid}
    except OSError:
        disk.close(fd)
        raise
    if stat.S_ISREG(found.st_mode) and found.st_uid in ours and found.st_nlink <= 1:
        return fd
    disk.close(fd)
    raise PermissionError(errno.EACCES, f"{name} is no segment of this user")


def acknowledged(disk: Disk, folder: str, name: str, fd: int) -> int:
    """The offset behind the segment's last acknowledged line; 0 if what is written there cannot be one.

    fd: the segment's descriptor.
    """
    try:
        ack = disk.open(f"{folder}/{name}{ACKNOWLEDGED}", _READ)
    except OSError:
        return 0
    try:
        text = disk.pread(ack, 32, 0)
    finally:
        disk.close(ack)
    offset = int(text) if _OFFSET.match(text) else 0
    return offset if offset and disk.pread(fd, 1, offset - 1) == b"\n" else 0


def written_at(beginning: bytes, name: str) -> float:
    """When a line was logged, from its own time stamp, or else from its segment's name; seconds since 1970."""
    stamp = _STAMP.match(beginning)
    if stamp:
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(stamp[1].decode() + "+00:00").timestamp()
    return began_at(name)
