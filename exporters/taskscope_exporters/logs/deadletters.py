"""Where lines go that Elasticsearch can never take: a file beside the spool, each line with the server's reason.

Shipper and replay meet here. Who appends and who takes the file holds its lock for that moment alone; a line is in
one of the two files at any moment, and after a kill perhaps in both, under the same id.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from taskscope.logs.segments import Line

__all__ = [
    "FILE_NAME",
    "MOST_BYTES",
    "TAKEN_NAME",
    "Letter",
    "bury",
    "only_replay",
    "put_back",
    "read_letters",
    "take",
]

FILE_NAME: Final = "dead-letters.ndjson"
TAKEN_NAME: Final = "dead-letters.taken.ndjson"
"""Those that are being replayed."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""The most that both files hold; what comes after that is discarded, and counted."""

_LOCK_NAME: Final = "dead-letters.lock"
_REPLAY_LOCK_NAME: Final = "dead-letters.replay.lock"
_APPEND: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One line that cannot be stored. kind, reason: the server's type of error and what it says."""

    line: Line
    kind: str
    reason: str


class _Error(msgspec.Struct):
    type: str = ""
    reason: str = ""


class _Record(msgspec.Struct, kw_only=True):
    """A letter as it lies in the file. at: when it was put there; encoding: of a line that is no text."""

    id: str
    error: _Error
    line: str
    at: str = ""
    encoding: str = "utf-8"


_decoder: Final = msgspec.json.Decoder(_Record)


def bury(folder: Path, dead: Sequence[Letter], *, now: float) -> int:
    """The letters are on disk in the folder's dead-letter file, one JSON object each; returns how many had no room.

    now: seconds since 1970. Raises OSError if they are not; then none of their lines may be acknowledged.
    """
    at = _stamp(now)
    records = [_packed(letter, at) for letter in dead]
    with _locked(folder):
        room = MOST_BYTES - _size(folder / FILE_NAME) - _size(folder / TAKEN_NAME)
        kept = _within(records, room)
        if kept:
            _append(folder / FILE_NAME, records[:kept])
    return len(records) - kept


def take(folder: Path) -> Path | None:
    """The file with the letters to be replayed, None if there are none; new ones go to a new file meanwhile.

    A replay that was killed left it there, and its letters come first. Raises OSError.
    """
    taken = folder / TAKEN_NAME
    with _locked(folder):
        if not taken.exists():
            try:
                (folder / FILE_NAME).rename(taken)
            except FileNotFoundError:
                return None
    return taken


def put_back(folder: Path, left: Sequence[Letter], strange: Sequence[bytes], *, now: float) -> None:
    """What was taken is done, except for what is left of it: that lies with the others again.

    Raises OSError; then all of it is still taken.
    """
    at = _stamp(now)
    with _locked(folder):
        records = [*(_packed(letter, at) for letter in left), *strange]
        if records:
            _append(folder / FILE_NAME, records)
        (folder / TAKEN_NAME).unlink()


def read_letters(path: Path) -> tuple[list[Letter], list[bytes]]:
    """The letters of a file in order, each id once, and the lines that are none. Raises OSError."""
    found: dict[str, Letter] = {}
    strange: list[bytes] = []
    with os.fdopen(os.open(path, _READ), "rb") as file:
        for text in file:
            try:
                record = _decoder.decode(text)
            except msgspec.MsgspecError:
                strange.append(text if text.endswith(b"\n") else text + b"\n")
            else:
                found.setdefault(record.id, _unpacked(record))
    return [*found.values()], strange


@contextmanager
def only_replay(folder: Path) -> Iterator[bool]:
    """Whether no other replay is at work in the folder; none begins within it. Raises OSError."""
    fd = os.open(folder / _REPLAY_LOCK_NAME, _LOCK, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / _LOCK_NAME, _LOCK, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _append(path: Path, records: Sequence[bytes]) -> None:
    fd = os.open(path, _APPEND, 0o600)
    try:
        # Half a record of one who was killed is its own line; its batch was not acknowledged and comes again.
        text = (b"" if _ends_whole(fd) else b"\n") + b"".join(records)
        while text:
            text = text[os.write(fd, text) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _ends_whole(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return not size or os.pread(fd, 1, size - 1) == b"\n"


def _within(records: Sequence[bytes], room: int) -> int:
    """How many of the records, from the first on, have room."""
    for count, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return count
    return len(records)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")


def _packed(letter: Letter, at: str) -> bytes:
    raw, encoding = letter.line.raw, "utf-8"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text, encoding = raw.decode("latin-1"), "latin-1"
    record = _Record(
        id=letter.line.id,
        error=_Error(type=letter.kind, reason=letter.reason),
        line=text,
        at=at,
        encoding=encoding,
    )
    return msgspec.json.encode(record) + b"\n"


def _unpacked(record: _Record) -> Letter:
    encoding = "latin-1" if record.encoding == "latin-1" else "utf-8"
    raw = record.line.encode(encoding, "replace").rstrip(b"\n").replace(b"\n", b" ") + b"\n"
    line = Line(id=record.id, raw=raw)
    return Letter(line=line, kind=record.error.type, reason=record.error.reason)
