"""Looks into a spool folder and changes nothing: its lines newest first, and new ones as they are written.

It may look while processes write and a shipper ships: what vanishes meanwhile has been shipped. Memory stays small
however large the spool is: of each segment one block is read at a time.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from taskscope.logs.disk import MACHINE
from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.names import SEGMENT_NAME, began_at, line_id
from taskscope.logs.segments import acknowledged, open_segment

__all__ = ["Following", "Seen", "newest_first"]

_STAMP: Final = re.compile(rb'\{"@timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z"')
_BLOCK: Final = 64 * 1024
_FORWARD_BLOCK: Final = 1024 * 1024
_MICROSECOND: Final = 1_000_000
_NANOSECONDS: Final = 1_000
# A file's times come from a clock that may be a few ticks late.
_TICK: Final = 50_000
# Threads write lines in another order than they made them, and a clock may be set back a little.
_SLACK: Final = 60 * _MICROSECOND


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Seen:
    """One line without its line break. at: microseconds since 1970; id: of its document, as the shipper has it."""

    at: int
    id: str
    raw: bytes = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    name: str
    size: int
    changed: int  # microseconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which lines are looked for; as the arguments of `newest_first`."""

    since: int
    shipped_since: int | None
    holding: tuple[bytes, ...]

    def may_hold(self, text: bytes) -> bool:
        """Whether there may be a line in the text that holds all it must."""
        if not self.holding:
            return True
        lower = text.lower()
        return all(word in lower for word in self.holding)


def newest_first(
    folder: Path,
    *,
    since: int,
    shipped_since: int | None = None,
    holding: tuple[bytes, ...] = (),
) -> Iterator[Seen]:
    """The folder's whole lines from `since` on, the last written first.

    since: microseconds since 1970. shipped_since: lines that were shipped already are left out unless they are
    younger than this; None leaves none out. holding: texts in lower case that each line holds in some case.
    Raises OSError if the folder cannot be read.
    """
    wanted = _Wanted(since=since, shipped_since=shipped_since, holding=holding)
    waiting = sorted(_segments(folder, since), key=lambda segment: segment.changed)
    active: list[tuple[int, str, Seen, Iterator[Seen]]] = []
    while waiting or active:
        # A segment is opened once it may hold the newest line that is left: none is younger than its last change.
        if waiting and (not active or waiting[-1].changed + _TICK >= -active[0][0]):
            lines = _backwards(folder, waiting.pop(), wanted)
        else:
            _, _, line, lines = heapq.heappop(active)
            yield line
        for line in lines:
            heapq.heappush(active, (-line.at, line.id, line, lines))
            break


def _segments(folder: Path, since: int) -> Iterator[_Segment]:
    folder.stat()  # a folder that is not there is no empty one
    for name in _names(folder):
        with suppress(FileNotFoundError):
            found = (folder / name).lstat()
            changed = found.st_mtime_ns // _NANOSECONDS
            if changed >= since - _SLACK and found.st_size:
                yield _Segment(name=name, size=found.st_size, changed=changed)


def _backwards(folder: Path, segment: _Segment, wanted: _Wanted) -> Iterator[Seen]:
    young = wanted.shipped_since
    shipped = 0 if young is None else _shipped(folder, segment.name)
    for offset, raw in _lines_backwards(folder, segment, wanted):
        line = _seen(segment.name, offset, raw)
        if line.at < wanted.since - _SLACK:
            return
        if offset < shipped and young is not None and line.at < young:
            return
        if line.at >= wanted.since:
            yield line


def _lines_backwards(
    folder: Path, segment: _Segment, wanted: _Wanted
) -> Iterator[tuple[int, bytes]]:
    """Offset and text of each whole line, the last one first; what is too long to be a line is left out."""
    end = segment.size
    rest = b""  # the end of a line that begins in an earlier block
    torn = True  # what follows the last line break is half a line
    while end:
        begin = max(0, end - _BLOCK)
        read = _block(folder, segment.name, begin, end)
        if read is None:
            return
        block = read + rest
        end = begin
        if torn:
            block = block[: block.rfind(b"\n") + 1]
            torn = not block
        first = block.find(b"\n") + 1 if begin else 0
        if first:
            rest = block[max(0, first - LINE_BYTES - 1) : first]  # enough to show if it is too long
        if wanted.may_hold(block):
            yield from reversed(_whole(block[first:], begin + first, wanted))


def _whole(text: bytes, at: int, wanted: _Wanted) -> list[tuple[int, bytes]]:
    """Offset and text of each line that may be wanted."""
    found = []
    for raw in text.split(b"\n")[:-1]:
        if len(raw) < LINE_BYTES and wanted.may_hold(raw):
            found.append((at, raw))
        at += len(raw) + 1
    return found


def _block(folder: Path, name: str, begin: int, end: int) -> bytes | None:
    """The file is opened each time, so that a thousand segments need no thousand descriptors; None if it is gone."""
    try:
        fd = open_segment(MACHINE, str(folder), name)
    except OSError:
        return None  # shipped and removed meanwhile, or no segment of ours
    try:
        return os.pread(fd, end - begin, begin)
    finally:
        os.close(fd)


def _shipped(folder: Path, name: str) -> int:
    try:
        fd = open_segment(MACHINE, str(folder), name)
    except OSError:
        return 0
    try:
        return acknowledged(MACHINE, str(folder), name, fd)
    finally:
        os.close(fd)


def _seen(name: str, offset: int, raw: bytes) -> Seen:
    return Seen(at=_written_at(raw, name), id=line_id(name, offset), raw=raw)


def _written_at(raw: bytes, name: str) -> int:
    """When a line was logged, from its own time stamp, or else from its segment's name; microseconds since 1970."""
    stamp = _STAMP.match(raw)
    if stamp:
        with suppress(ValueError):
            fraction = (stamp[2] or b"0").ljust(6, b"0")
            return _second(stamp[1]) * _MICROSECOND + int(fraction[:6])
    return round(began_at(name) * _MICROSECOND)


@lru_cache(maxsize=1024)
def _second(text: bytes) -> int:
    return round(datetime.fromisoformat(f"{text.decode()}+00:00").timestamp())


def _names(folder: Path) -> list[str]:
    """The segments' names; none if the folder is not there."""
    try:
        return sorted(filter(SEGMENT_NAME.match, MACHINE.listdir(str(folder))))
    except FileNotFoundError:
        return []


class Following:
    """New lines of a folder, from the moment this is made; its holder closes it. from_start: old lines as well."""

    def __init__(self, folder: Path, *, from_start: bool = False) -> None:
        self.folder = folder
        self._offsets: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._ended: set[str] = set()
        for name in () if from_start else _names(folder):
            size = _size(folder, name)
            block = _block(folder, name, max(0, size - LINE_BYTES), size) or b""
            # Behind the last line break a line may stand that is half written at this moment.
            self._offsets[name] = size - len(block) + block.rfind(b"\n") + 1

    def lines(self) -> Iterator[Seen]:
        """What came since the last call, each segment's lines in their order."""
        present = set(_names(self.folder))
        for name in sorted((present | set(self._open)) - self._ended):
            fd = self._descriptor(name)
            if fd is not None:
                yield from self._news(name, fd, removed=name not in present)
        self._ended &= present

    def close(self) -> None:
        """No file is open any more."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, name: str) -> int | None:
        """Held open while its writer lives, because a shipper may remove the file before it is looked at again."""
        if name not in self._open:
            try:
                self._open[name] = open_segment(MACHINE, str(self.folder), name)
            except OSError:
                return None  # it came and went meanwhile, or is no segment of ours
        return self._open[name]

    def _news(self, name: str, fd: int, *, removed: bool) -> Iterator[Seen]:
        # Looked at first: what is written after that is seen at the next call.
        ended = removed or _has_no_writer(fd)
        at = self._offsets.get(name, 0)
        while chunk := os.pread(fd, _FORWARD_BLOCK, at):
            whole = chunk.rfind(b"\n") + 1
            if not whole:
                break
            for raw in chunk[: whole - 1].split(b"\n"):
                if len(raw) < LINE_BYTES:
                    yield _seen(name, at, raw)
                at += len(raw) + 1
            self._offsets[name] = at
        if ended:
            os.close(self._open.pop(name))
            self._ended.add(name)
            self._offsets.pop(name, None)


def _size(folder: Path, name: str) -> int:
    try:
        return (folder / name).lstat().st_size
    except OSError:
        return 0


def _has_no_writer(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
