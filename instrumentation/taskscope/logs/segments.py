"""The reader's side of the spool: whole lines from where the last acknowledgement stands, oldest segment first.

A segment whose lock can be had has no writer any more: once its lines are acknowledged it is removed. Half a line
at its end was never answered as written; it is counted and dropped. What is no segment of ours is set aside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.spool import SEGMENT_NAME

__all__ = ["Batch", "Line", "Pending", "SpoolReader", "pending"]

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_OFFSET: Final = re.compile(rb"\d{1,18}\n\Z")
_STAMP: Final = re.compile(rb'\{"@timestamp":"([0-9T:.\-]{19,26})Z"')
_DRAFT_AGE_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line with its line break, and the id of its document: the same however often it is read."""

    id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines that follow each other in one segment.

    lines: to be shipped. damaged: what is no line of ours, at most LINE_BYTES of each, to be set aside.
    end: the offset that an acknowledgement moves to.
    """

    segment: str
    end: int
    lines: tuple[Line, ...]
    damaged: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What is not shipped yet: its bytes, and the age of its oldest line in seconds (0 when there is none)."""

    bytes: int
    oldest_s: float


class SpoolReader:
    """Reads one spool folder; only one may acknowledge in a folder at a time, which its caller's lock must see to.

    torn: half lines dropped. set_aside: names of files that were moved to `aside/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torn = 0
        self.set_aside: list[str] = []
        self._offsets: dict[str, int] = {}
        self._served = ""

    def batch(self, *, max_lines: int, max_bytes: int) -> Batch | None:
        """The oldest lines of one writer that are not acknowledged, or None when there are none at all.

        Writers take turns, so that one which never rests keeps no other waiting. Removes segments that are done.
        Raises OSError if the folder cannot be read.
        """
        self._tidy()
        for name in self._in_turn():
            fd = self._open(name)
            if fd is None:
                continue
            try:
                found = self._read(fd, name, max_lines=max_lines, max_bytes=max_bytes)
                if found is not None:
                    self._served = _writer(name)
                    return found
                self._finish(fd, name)
            finally:
                os.close(fd)
        return None

    def _in_turn(self) -> list[str]:
        """The segments of each writer oldest first, beginning with the writer after the one served last."""
        return sorted(
            _names(self.folder),
            key=lambda name: (_writer(name) <= self._served, _writer(name), name),
        )

    def acknowledge(self, batch: Batch) -> None:
        """The batch is done: after this, also in another process or after a crash, reading goes on behind it.

        Raises OSError if that cannot be kept on disk; then it holds for this reader alone, whose ids absorb the rest.
        """
        self._offsets[batch.segment] = batch.end
        path = self.folder / f"{batch.segment}.ack"
        draft = self.folder / f"{batch.segment}.ack.new"
        fd = os.open(draft, _WRITE, 0o600)
        try:
            os.write(fd, b"%d\n" % batch.end)
            # Before the rename, so that a crash leaves the old offset or the new one, never an empty file. An old
            # offset only sends lines again, which their ids absorb: the folder itself needs no fsync.
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.rename(path)

    def _read(self, fd: int, name: str, *, max_lines: int, max_bytes: int) -> Batch | None:
        start = self._offset(fd, name)
        chunk = os.pread(fd, max(max_bytes, LINE_BYTES), start)
        whole = chunk.rfind(b"\n") + 1
        if not whole:
            return self._overlong(fd, name, start, chunk)
        lines: list[Line] = []
        damaged: list[Line] = []
        at = start
        for raw in chunk[: whole - 1].split(b"\n")[:max_lines]:
            line = Line(id=_line_id(name, at), raw=raw + b"\n")
            (lines if _looks_whole(raw) else damaged).append(line)
            at += len(raw) + 1
        return Batch(segment=name, end=at, lines=tuple(lines), damaged=tuple(damaged))

    def _overlong(self, fd: int, name: str, start: int, chunk: bytes) -> Batch | None:
        """A line longer than any of ours: it is stepped over once its end is on disk."""
        if len(chunk) < LINE_BYTES:
            return None
        at = start + len(chunk)
        while more := os.pread(fd, 1024 * 1024, at):
            found = more.find(b"\n")
            if found >= 0:
                line = Line(id=_line_id(name, start), raw=chunk[: LINE_BYTES - 1] + b"\n")
                return Batch(segment=name, end=at + found + 1, lines=(), damaged=(line,))
            at += len(more)
        return None

    def _offset(self, fd: int, name: str) -> int:
        if name not in self._offsets:
            self._offsets[name] = _acknowledged(self.folder, name, fd)
        return self._offsets[name]

    def _finish(self, fd: int, name: str) -> None:
        """Removes the segment if its writer is gone and nothing came since it was read."""
        if not _writer_is_gone(fd):
            return
        start = self._offsets[name]
        rest = os.pread(fd, LINE_BYTES, start)
        if b"\n" in rest or (len(rest) == LINE_BYTES and self._overlong(fd, name, start, rest)):
            return
        self.torn += bool(rest)
        # The acknowledgement goes last: without it the whole segment would be sent again.
        (self.folder / name).unlink()
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{name}.ack").unlink()
        del self._offsets[name]

    def _open(self, name: str) -> int | None:
        try:
            return _open_segment(self.folder, name)
        except FileNotFoundError:
            return None
        except OSError:
            self._put_aside(name)
            return None

    def _put_aside(self, name: str) -> None:
        aside = self.folder / "aside"
        try:
            aside.mkdir(mode=0o700, exist_ok=True)
            (self.folder / name).rename(aside / f"{name}.{uuid.uuid4().hex[:8]}")
        except OSError:
            if name in self.set_aside:
                return
        self.set_aside.append(name)

    def _tidy(self) -> None:
        """Sets strangers aside and removes what crashes left: acknowledgements and drafts without a segment."""
        entries = {path.name for path in self.folder.iterdir()}
        for name in entries:
            if name.endswith(".seg") and not SEGMENT_NAME.match(name):
                self._put_aside(name)
            elif name.endswith(".ack") and name.removesuffix(".ack") not in entries:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()
            elif name.endswith(".new"):
                self._remove_old_draft(self.folder / name)

    def _remove_old_draft(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _DRAFT_AGE_S:
                path.unlink()


def pending(folder: Path, *, now: float) -> Pending:
    """What the folder holds that is not acknowledged; now: seconds since 1970. Never raises OSError."""
    waiting = 0
    oldest = now
    for name in _names(folder):
        try:
            fd = _open_segment(folder, name)
        except OSError:
            continue  # removed meanwhile, or not ours: the reader sets it aside
        try:
            start = _acknowledged(folder, name, fd)
            rest = os.fstat(fd).st_size - start
            if rest > 0:
                waiting += rest
                oldest = min(oldest, _written_at(os.pread(fd, 64, start), name))
        finally:
            os.close(fd)
    return Pending(bytes=waiting, oldest_s=max(0.0, now - oldest))


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from sorted(path.name for path in folder.iterdir() if SEGMENT_NAME.match(path.name))
    except FileNotFoundError:
        return


def _writer(name: str) -> str:
    """The run's id in a segment's name: all segments of one writer share it, and no other's."""
    return name.split("-")[1]


def _open_segment(folder: Path, name: str) -> int:
    """Raises OSError unless it is a regular file of ours, reached without a link."""
    fd = os.open(folder / name, _READ)
    found = os.fstat(fd)
    ours = {os.geteuid(), folder.stat().st_uid}
    if stat.S_ISREG(found.st_mode) and found.st_uid in ours and found.st_nlink <= 1:
        return fd
    os.close(fd)
    raise PermissionError(f"{name} is no segment of this user")


def _acknowledged(folder: Path, name: str, fd: int) -> int:
    """The offset behind the last acknowledged line; 0 if what is written there cannot be one."""
    try:
        ack = os.open(folder / f"{name}.ack", _READ)
    except OSError:
        return 0
    try:
        text = os.read(ack, 32)
    finally:
        os.close(ack)
    offset = int(text) if _OFFSET.match(text) else 0
    return offset if offset and os.pread(fd, 1, offset - 1) == b"\n" else 0


def _writer_is_gone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _line_id(name: str, offset: int) -> str:
    return f"{name.removesuffix('.seg')}-{offset:x}"


def _looks_whole(raw: bytes) -> bool:
    return raw[:1] == b"{" and raw[-1:] == b"}" and len(raw) < LINE_BYTES


def _written_at(beginning: bytes, name: str) -> float:
    """When a line was logged, from its own time stamp, or else from its segment's name; seconds since 1970."""
    found = _STAMP.match(beginning)
    if found:
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(found[1].decode() + "+00:00").timestamp()
    return int(name[:12], 16) / 1000
