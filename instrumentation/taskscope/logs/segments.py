"""The reader's side of the spool: whole lines from where the last acknowledgement stands, oldest segment first.

A segment whose lock can be had has no writer any more: once its lines are acknowledged it is removed. Half a line
at its end was never answered as written; it is counted and dropped. What is no segment of ours is set aside, what
is of a later format waits for a reader of that format.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Final

from taskscope.logs.backlog import Pending, pending
from taskscope.logs.disk import MACHINE, Disk
from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.files import acknowledged, open_segment
from taskscope.logs.names import (
    ACKNOWLEDGED,
    DRAFT,
    LATER_NAME,
    SEGMENT,
    SEGMENT_NAME,
    line_id,
    turn,
    writer,
)

__all__ = ["Batch", "Line", "Pending", "SpoolReader", "acknowledged", "open_segment", "pending"]

_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_FIRST: Final = itemgetter(0)
_LAST: Final = itemgetter(-1)
_OPENING: Final = ord("{")
_CLOSING: Final = ord("}")
_DRAFT_AGE_S: Final = 600.0
# A link, a socket, a file of somebody else: what a segment of ours never is. Other errors say nothing of the file.
_STRANGE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line with its line break, and the id of its document: the same however often it is read."""

    id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines that follow each other in one segment.

    raws: the lines to be shipped, without their breaks; offsets: where in the segment each begins.
    damaged: what is no line of ours, at most LINE_BYTES of each, to be set aside.
    end: the offset that an acknowledgement moves to. ended: of fewer lines than were asked for, whether nobody writes
    the segment any more, so that to wait brings no more of them.
    """

    segment: str
    end: int
    raws: list[bytes]
    offsets: list[int]
    damaged: tuple[Line, ...] = ()
    ended: bool = False

    @property
    def stem(self) -> str:
        """What a line's id begins with; a hyphen and its offset in hexadecimal follow."""
        return self.segment.removesuffix(SEGMENT)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines to be shipped, each with its id."""
        return tuple(
            Line(id=line_id(self.segment, at), raw=raw + b"\n")
            for raw, at in zip(self.raws, self.offsets, strict=True)
        )


class SpoolReader:
    """Reads one spool folder; only one may acknowledge in a folder at a time, which its caller's lock must see to.

    torn: half lines dropped. set_aside: names of files that were moved to `aside/`. later: names of files of a
    later format, which stay where they are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk = MACHINE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.torn = 0
        self.set_aside: list[str] = []
        self.later: list[str] = []
        self._path = str(folder)
        self._disk = disk
        self._monotonic = monotonic
        self._offsets: dict[str, int] = {}
        self._drafts: dict[str, float] = {}
        self._served = ""

    def batch(self, *, max_lines: int, max_bytes: int) -> Batch | None:
        """The oldest lines of one writer that are not acknowledged, or None when there are none at all.

        Writers take turns, so that one which never rests keeps no other waiting. Removes segments that are done.
        Raises OSError if the folder cannot be read, or nothing but what cannot be read now is left.
        """
        names = self._disk.listdir(self._path)
        self._tidy(names)
        failed: OSError | None = None
        for name in self._in_turn(names):
            try:
                found = self._lines_of(name, max_lines=max_lines, max_bytes=max_bytes)
            except OSError as error:
                failed = error  # it holds up no other
                continue
            if found is not None:
                self._served = writer(name)
                return found
        if failed is not None:
            raise failed
        return None

    def _lines_of(self, name: str, *, max_lines: int, max_bytes: int) -> Batch | None:
        fd = self._open(name)
        if fd is None:
            return None
        try:
            found = self._read(fd, name, max_lines=max_lines, max_bytes=max_bytes)
            if found is None:
                self._finish(fd, name)
            elif len(found.raws) < max_lines and self._writer_is_gone(fd):
                found = replace(found, ended=True)
        except OSError as error:
            if error.errno != errno.EIO or not self._writer_is_gone(fd):
                raise
            self._put_aside(name)  # the disk does not give it back, and nobody writes it any more
            return None
        else:
            return found
        finally:
            self._disk.close(fd)

    def _in_turn(self, names: list[str]) -> list[str]:
        """The segments of each writer in their order, beginning with the writer after the one served last."""
        return sorted(
            filter(SEGMENT_NAME.match, names),
            key=lambda name: (writer(name) <= self._served, writer(name), turn(name)),
        )

    def acknowledge(self, batch: Batch) -> None:
        """The batch is done: after this, also in another process or after a crash, reading goes on behind it.

        Raises OSError if that cannot be kept on disk; then it holds for this reader alone, whose ids absorb the rest.
        """
        self._offsets[batch.segment] = batch.end
        path = f"{self._path}/{batch.segment}{ACKNOWLEDGED}"
        fd = self._disk.open(path + DRAFT, _WRITE, 0o600)
        try:
            text = b"%d\n" % batch.end
            if self._disk.write(fd, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Before the rename, so that a crash leaves the old offset or the new one, never an empty file. An old
            # offset only sends lines again, which their ids absorb: the folder itself needs no fsync.
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)
        self._disk.rename(path + DRAFT, path)

    def _read(self, fd: int, name: str, *, max_lines: int, max_bytes: int) -> Batch | None:
        start = self._offset(fd, name)
        chunk = self._disk.pread(fd, max(max_bytes, LINE_BYTES), start)
        raws = chunk.split(b"\n", max_lines)
        raws.pop()  # what is behind the last break
        if not raws:
            return self._overlong(fd, name, start, chunk)
        offsets = [*accumulate([len(raw) + 1 for raw in raws], initial=start)]
        end = offsets.pop()
        batch = Batch(segment=name, end=end, raws=raws, offsets=offsets)
        return batch if _look_whole(chunk, end - start, raws) else _sifted(batch)

    def _overlong(self, fd: int, name: str, start: int, chunk: bytes) -> Batch | None:
        """A line longer than any of ours: it is stepped over once its end is on disk."""
        if len(chunk) < LINE_BYTES:
            return None
        at = start + len(chunk)
        while more := self._disk.pread(fd, 1024 * 1024, at):
            found = more.find(b"\n")
            if found >= 0:
                line = Line(id=line_id(name, start), raw=chunk[: LINE_BYTES - 1] + b"\n")
                return Batch(segment=name, end=at + found + 1, raws=[], offsets=[], damaged=(line,))
            at += len(more)
        return None

    def _offset(self, fd: int, name: str) -> int:
        if name not in self._offsets:
            self._offsets[name] = acknowledged(self._disk, self._path, name, fd)
        return self._offsets[name]

    def _finish(self, fd: int, name: str) -> None:
        """Removes the segment if its writer is gone and nothing came since it was read."""
        if not self._writer_is_gone(fd):
            return
        start = self._offsets[name]
        rest = self._disk.pread(fd, LINE_BYTES, start)
        if b"\n" in rest or (len(rest) == LINE_BYTES and self._overlong(fd, name, start, rest)):
            return
        self.torn += bool(rest)
        # The acknowledgement goes last: without it the whole segment would be sent again.
        self._disk.unlink(f"{self._path}/{name}")
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(f"{self._path}/{name}{ACKNOWLEDGED}")
        del self._offsets[name]

    def _writer_is_gone(self, fd: int) -> bool:
        try:
            self._disk.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _open(self, name: str) -> int | None:
        try:
            return open_segment(self._disk, self._path, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _STRANGE:
                raise
            self._put_aside(name)
            return None

    def _put_aside(self, name: str) -> None:
        aside = f"{self._path}/aside"
        try:
            with contextlib.suppress(FileExistsError):
                self._disk.mkdir(aside, 0o700)
            self._disk.rename(f"{self._path}/{name}", f"{aside}/{name}.{uuid.uuid4().hex[:8]}")
        except OSError:
            if name in self.set_aside:
                return
        self.set_aside.append(name)

    def _tidy(self, names: list[str]) -> None:
        """Sets strangers aside and removes what crashes left: acknowledgements and drafts without a segment."""
        there = set(names)
        self._drafts = {name: seen for name, seen in self._drafts.items() if name in there}
        self.later = sorted(filter(LATER_NAME.match, names))
        for name in names:
            if name.endswith(SEGMENT):
                if not SEGMENT_NAME.match(name):
                    self._put_aside(name)
            elif name.endswith(ACKNOWLEDGED):
                if name.removesuffix(ACKNOWLEDGED) not in there:
                    self._remove(name)
            elif name.endswith(DRAFT):
                self._remove_old_draft(name)

    def _remove_old_draft(self, name: str) -> None:
        """A draft lives for the blink of an eye; its own time stamp is a clock's, which may be set at any moment."""
        now = self._monotonic()
        if now - self._drafts.setdefault(name, now) > _DRAFT_AGE_S:
            self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(f"{self._path}/{name}")


def _look_whole(chunk: bytes, size: int, raws: list[bytes]) -> bool:
    """Whether all lines are such as ours, which nearly all are: seen at once, for a look at each costs its share."""
    return (
        all(raws)
        and {*map(_FIRST, raws)} == {_OPENING}
        and {*map(_LAST, raws)} == {_CLOSING}
        and chunk.find(b"\0", 0, size) < 0
        and max(map(len, raws)) < LINE_BYTES
    )


def _looks_whole(raw: bytes) -> bool:
    # No line of ours has a NUL: it is what some file systems show of blocks that were not written before a power loss.
    return raw[:1] == b"{" and raw[-1:] == b"}" and len(raw) < LINE_BYTES and b"\0" not in raw


def _sifted(batch: Batch) -> Batch:
    """The batch without what is no line of ours, which it has apart."""
    raws: list[bytes] = []
    offsets: list[int] = []
    damaged: list[Line] = []
    for raw, at in zip(batch.raws, batch.offsets, strict=True):
        if _looks_whole(raw):
            raws.append(raw)
            offsets.append(at)
        else:
            damaged.append(Line(id=line_id(batch.segment, at), raw=raw[: LINE_BYTES - 1] + b"\n"))
    return Batch(
        segment=batch.segment, end=batch.end, raws=raws, offsets=offsets, damaged=tuple(damaged)
    )
