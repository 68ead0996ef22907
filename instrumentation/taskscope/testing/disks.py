"""A disk in memory that may fail at any call, fill up, and lose its power; for tests of what writes to one.

It knows what a real one promises, and nothing beyond: what was not synced may be there after a loss of power, or
not, or in part, or as zeros; a new name is safe once its folder was synced; a failed sync is not made good by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

__all__ = ["Platter", "SimulatedDisk"]

_FIRST_INODE: Final = 2
_UNBOUNDED: Final = 1 << 40


_Span: TypeAlias = tuple[int, int]


@dataclass(eq=False, slots=True)
class _Inode:
    """data: what programs see. durable: what surely outlives a loss of power. dirty: spans that a sync would bring to
    disk. lost: spans that no sync will bring there, after one has failed. past: what the file was before it was cut,
    since the last sync: it may have reached the disk so, or as it was before any of its lines."""

    number: int
    mode: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: list[_Span] = field(default_factory=list)
    lost: list[_Span] = field(default_factory=list)
    past: list[bytes] = field(default_factory=list)
    links: int = 1
    locks: dict[int, bool] = field(default_factory=dict)

    def append(self, data: bytes) -> None:
        begin = len(self.data)
        self.data += data
        self.dirty.append((begin, len(self.data)))

    def cut(self, length: int) -> None:
        self.past.append(bytes(self.data))
        del self.data[length:]
        self.dirty = _up_to(self.dirty, length)
        self.lost = _up_to(self.lost, length)

    def fail_to_sync(self) -> None:
        """The kernel takes the pages for clean from now on: programs see them, the disk never will."""
        self.lost += self.dirty
        self.dirty.clear()
        self.past.clear()

    def sync(self) -> None:
        kept = bytearray(self.durable[: len(self.data)].ljust(len(self.data), b"\0"))
        for begin, end in self.dirty:
            kept[begin:end] = self.data[begin:end]
        self.durable = bytes(kept)
        self.dirty.clear()
        self.past.clear()

    def lose_power(self, rng: random.Random) -> None:
        safe = len(self.durable)
        seen = rng.choice([self.durable, bytes(self.data), *self.past])
        if len(seen) > safe:
            found = bytearray(self.durable + seen[safe : rng.randint(safe, len(seen))])
            for begin, end in _up_to(self.lost, len(found)):
                found[begin:end] = bytes(end - begin)
            if rng.random() < 0.5:
                _tear(found, safe, rng)
            seen = bytes(found)
        self.data = bytearray(seen)
        self.durable = seen
        self.dirty.clear()
        self.lost.clear()
        self.past.clear()
        self.locks.clear()
        self.links = 1


def _up_to(spans: list[_Span], length: int) -> list[_Span]:
    return [(begin, min(end, length)) for begin, end in spans if begin < length]


def _tear(found: bytearray, safe: int, rng: random.Random) -> None:
    """Some of what was not synced is there, and some before it is not."""
    begin = rng.randint(safe, len(found))
    end = rng.randint(begin, len(found))
    found[begin:end] = bytes(end - begin)


@dataclass(slots=True)
class _Change:
    """A name that was made, given anew or taken away, and whose folder was not synced yet."""

    name: str
    inode: _Inode | None
    gone: str = ""


class Platter:
    """The disk itself, which outlives the processes that use it. capacity: bytes that its files may hold."""

    def __init__(self, *, capacity: int = _UNBOUNDED) -> None:
        self.capacity = capacity
        self.names: dict[str, _Inode] = {}
        self._safe_names: dict[str, _Inode] = {}
        self._changes: list[_Change] = []
        self._inodes = _FIRST_INODE
        self._descriptors = 2
        self._processes: list[SimulatedDisk] = []

    def process(self) -> SimulatedDisk:
        """The disk as one process sees it, which has its own descriptors and its own bad luck."""
        made = SimulatedDisk(self)
        self._processes.append(made)
        return made

    def used(self) -> int:
        """The bytes of all files."""
        return sum(len(inode.data) for inode in self.names.values())

    def free(self) -> int:
        """The bytes that still can be written."""
        return _UNBOUNDED if self.capacity == _UNBOUNDED else max(0, self.capacity - self.used())

    def lose_power(self, rng: random.Random) -> None:
        """All processes are gone, and of what was not synced, anything may have reached the disk."""
        for process in self._processes:
            process.kill()
        self._processes.clear()
        for change in self._changes:
            if rng.random() < 0.5:
                self._apply(self._safe_names, change)
        self._changes.clear()
        self.names = dict(self._safe_names)
        for inode in dict.fromkeys(self.names.values()):  # a set is ordered by addresses
            inode.lose_power(rng)

    def new_inode(self, mode: int) -> _Inode:
        self._inodes += 1
        return _Inode(number=self._inodes, mode=mode)

    def new_descriptor(self) -> int:
        self._descriptors += 1
        return self._descriptors

    def change(self, change: _Change) -> None:
        self._apply(self.names, change)
        self._changes.append(change)

    def sync_names(self) -> None:
        for change in self._changes:
            self._apply(self._safe_names, change)
        self._changes.clear()

    @staticmethod
    def _apply(names: dict[str, _Inode], change: _Change) -> None:
        if change.gone and names.pop(change.gone, None) is None:
            return  # the name that it had before never reached the disk
        if change.inode is None:
            return
        names[change.name] = change.inode


class SimulatedDisk:
    """One process's disk: what `taskscope.logs.disk.Disk` asks for.

    calls: how often each was made. fail: errors to come, by the call's name and its number, counted from one;
    short: writes to come that end early, after so many bytes, by their number.
    """

    def __init__(self, platter: Platter) -> None:
        self.calls: Counter[str] = Counter()
        self.fail: dict[tuple[str, int], int] = {}
        self.short: dict[int, int] = {}
        self._platter = platter
        self._open: dict[int, _Inode] = {}

    @property
    def descriptors(self) -> int:
        """How many files the process has open."""
        return len(self._open)

    def kill(self) -> None:
        """The process is gone; what it wrote stands as long as the power does."""
        for fd in list(self._open):
            self.close(fd)

    def fail_next(self, call: str, number: int) -> None:
        """The next call of that name fails with that error."""
        self.fail[call, self.calls[call] + 1] = number

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._count("open")
        found = self._platter.names.get(path)
        if found is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT)
            found = self._platter.new_inode(stat.S_IFREG | mode)
            self._platter.change(_Change(name=path, inode=found))
        elif flags & os.O_EXCL:
            raise _error(errno.EEXIST)
        elif flags & os.O_TRUNC and found.data:
            found.cut(0)
        fd = self._platter.new_descriptor()
        self._open[fd] = found
        return fd

    def close(self, fd: int) -> None:
        self._inode(fd).locks.pop(fd, None)
        del self._open[fd]

    def write(self, fd: int, data: bytes) -> int:
        inode = self._inode(fd)
        self._count("write")
        size = self.short.pop(self.calls["write"], len(data))
        room = self._platter.free()
        if not room:
            raise _error(errno.ENOSPC)
        data = data[: min(size, room)]
        inode.append(data)
        return len(data)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._count("pread")
        return bytes(self._inode(fd).data[offset : offset + length])

    def ftruncate(self, fd: int, length: int) -> None:
        self._count("ftruncate")
        self._inode(fd).cut(length)

    def fdatasync(self, fd: int) -> None:
        inode = self._inode(fd)
        try:
            self._count("fdatasync")
        except OSError:
            inode.fail_to_sync()
            raise
        inode.sync()

    def fsync(self, fd: int) -> None:
        inode = self._inode(fd)
        if stat.S_ISDIR(inode.mode):
            self._count("fsync")
            self._platter.sync_names()
        else:
            self.fdatasync(fd)

    def fstat(self, fd: int) -> os.stat_result:
        return _status(self._inode(fd))

    def lstat(self, path: str) -> os.stat_result:
        return _status(self._named(path))

    def flock(self, fd: int, operation: int) -> None:
        self._count("flock")
        inode = self._inode(fd)
        exclusive = bool(operation & fcntl.LOCK_EX)
        others = [held for other, held in inode.locks.items() if other != fd]
        if (exclusive and others) or any(others):
            raise _error(errno.EWOULDBLOCK)
        inode.locks[fd] = exclusive

    def rename(self, path: str, to: str) -> None:
        self._count("rename")
        inode = self._named(path)
        replaced = self._platter.names.get(to)
        if replaced is not None:
            replaced.links = 0
        self._platter.change(_Change(name=to, inode=inode, gone=path))

    def unlink(self, path: str) -> None:
        self._count("unlink")
        self._named(path).links = 0
        self._platter.change(_Change(name="", inode=None, gone=path))

    def mkdir(self, path: str, mode: int) -> None:
        if path in self._platter.names:
            raise _error(errno.EEXIST)
        self._platter.change(_Change(name=path, inode=self._platter.new_inode(stat.S_IFDIR | mode)))
        self._platter.sync_names()

    def listdir(self, path: str) -> list[str]:
        self._count("listdir")
        self._named(path)
        before = path + "/"
        inside = (name[len(before) :] for name in self._platter.names if name.startswith(before))
        return [name for name in inside if "/" not in name]

    def statvfs(self, _path: str) -> os.statvfs_result:
        free = self._platter.free()
        return os.statvfs_result((1, 1, self._platter.capacity, free, free, 1, 1, 1, 0, 255))

    def _count(self, call: str) -> None:
        self.calls[call] += 1
        number = self.fail.pop((call, self.calls[call]), 0)
        if number:
            raise _error(number)

    def _inode(self, fd: int) -> _Inode:
        try:
            return self._open[fd]
        except KeyError:
            raise _error(errno.EBADF) from None

    def _named(self, path: str) -> _Inode:
        try:
            return self._platter.names[path]
        except KeyError:
            raise _error(errno.ENOENT) from None


def _status(inode: _Inode) -> os.stat_result:
    size = len(inode.data)
    uid = os.geteuid()
    return os.stat_result((inode.mode, inode.number, 1, inode.links, uid, 0, size, 0, 0, 0))


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
