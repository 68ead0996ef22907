"""What the spool asks of a disk, so that its tests can put one under it that fails or loses its power.

The machine's own does exactly what the functions of the operating system do.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final, Protocol

__all__ = ["MACHINE", "Disk"]


class Disk(Protocol):
    """The calls of the operating system that writer and reader make; all raise OSError as it does."""

    def open(self, path: str, flags: int, mode: int = ..., /) -> int: ...

    def close(self, fd: int, /) -> None: ...

    def write(self, fd: int, data: bytes, /) -> int: ...

    def pread(self, fd: int, length: int, offset: int, /) -> bytes: ...

    def ftruncate(self, fd: int, length: int, /) -> None: ...

    def fdatasync(self, fd: int, /) -> None: ...

    def fsync(self, fd: int, /) -> None: ...

    def fstat(self, fd: int, /) -> os.stat_result: ...

    def lstat(self, path: str, /) -> os.stat_result: ...

    def flock(self, fd: int, operation: int, /) -> None: ...

    def rename(self, path: str, to: str, /) -> None: ...

    def unlink(self, path: str, /) -> None: ...

    def mkdir(self, path: str, mode: int, /) -> None: ...

    def listdir(self, path: str, /) -> list[str]: ...

    def statvfs(self, path: str, /) -> os.statvfs_result: ...


class _Machine:
    open = staticmethod(os.open)
    close = staticmethod(os.close)
    write = staticmethod(os.write)
    pread = staticmethod(os.pread)
    ftruncate = staticmethod(os.ftruncate)
    # Not every system has the cheaper one.
    fdatasync = staticmethod(getattr(os, "fdatasync", os.fsync))
    fsync = staticmethod(os.fsync)
    fstat = staticmethod(os.fstat)
    lstat = staticmethod(os.lstat)
    flock = staticmethod(fcntl.flock)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    listdir = staticmethod(os.listdir)
    statvfs = staticmethod(os.statvfs)


MACHINE: Final[Disk] = _Machine()
"""The machine's own disk."""
