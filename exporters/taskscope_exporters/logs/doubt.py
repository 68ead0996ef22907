"""Lines that may be stored though no answer said so, and which of them are: what a rollover makes of a lost answer.

A data stream refuses an id twice only while it writes to the same backing index. So a line in doubt is asked for, by
its id, in each backing index it may be in, and sent again only where it is in none (elastic/elasticsearch#44794).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from taskscope.logs.names import SEGMENT_NAME
from taskscope_exporters.logs.client import Cause, Trouble, translated
from taskscope_exporters.logs.portions import Portion, Sendable
from taskscope_exporters.logs.settings import ShipSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Doubts", "Unreadable", "backing_indices", "missing"]

_FILE_NAME: Final = "write-index.json"
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_LONGEST: Final = 4096
_MOST_INDICES: Final = 64


class Unreadable(Exception):  # noqa: N818 # no failure: the login has just not more than it needs
    """The login may not ask whether a line is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """Of one segment: up to which offset, and the backing index before which none of them was sent."""

    until: int
    index: str


class Doubts:
    """Which lines of a spool folder are in doubt, also after the shipper was killed at any moment.

    At the start all lines that are there are: a shipper that died may have sent them. The file `write-index.json`
    beside them names the backing index that lines went to at that time, or an older one.
    index: the backing index that took the last lines; empty while it is not known.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self._folder = folder
        self._stream = stream
        self._marked = self.index = _read_mark(folder / _FILE_NAME, stream)
        self._doubts = {
            name: _Doubt(until=size, index=self.index)
            for name, size in _sizes(folder).items()
            if size
        }

    def covers(self, portion: Portion) -> bool:
        """Whether some of these lines may be stored already."""
        doubt = self._doubts.get(portion.segment)
        return doubt is not None and portion.offsets[0] < doubt.until

    def since(self, portion: Portion) -> str:
        """The first backing index that lines in doubt may be in; empty if it is not known."""
        doubt = self._doubts.get(portion.segment)
        return doubt.index if doubt is not None else self.index

    def add(self, segment: str, end: int) -> None:
        """Of the segment's lines up to this offset nothing was heard, or it was and could not be kept on disk."""
        known = self._doubts.get(segment)
        self._doubts[segment] = _Doubt(
            until=max(end, known.until if known else 0), index=known.index if known else self.index
        )

    def settle(self, segment: str, end: int) -> None:
        """What became of the segment's lines up to this offset is known, and on disk."""
        doubt = self._doubts.get(segment)
        if doubt is not None and doubt.until <= end:
            del self._doubts[segment]
        self._mark()

    def clear(self) -> None:
        """Nothing is in doubt: there is no stream, so no line is stored."""
        self._doubts.clear()

    def saw(self, index: str) -> None:
        """The stream writes to this backing index. Doubts keep the one they began with."""
        if index:
            self.index = index

    def _mark(self) -> None:
        """What a successor begins with is on disk; it moves only when nothing is in doubt, and a failure is harmless:
        an older backing index only means that one more is asked."""
        if self.index == self._marked:
            return
        there = _sizes(self._folder)
        self._doubts = {name: doubt for name, doubt in self._doubts.items() if name in there}
        if self._doubts:
            return
        path = self._folder / _FILE_NAME
        draft = self._folder / f"{_FILE_NAME}.new"
        text = msgspec.json.encode({"stream": self._stream, "index": self.index})
        with contextlib.suppress(OSError):
            fd = os.open(draft, _FLAGS, 0o600)
            try:
                whole = os.write(fd, text) == len(text)
            finally:
                os.close(fd)
            if whole:
                draft.rename(path)
                self._marked = self.index


def backing_indices(
    client: Elasticsearch, settings: ShipSettings, stream: str, *, since: str
) -> Sequence[str]:
    """The backing indices of the stream that lines may be in which were sent when it wrote to `since`; oldest first.

    Empty if there is no such stream yet. since: empty gives the last 64. Raises Trouble if the server cannot tell
    now, Unreadable if the login may not ask.
    """
    from elasticsearch import AuthorizationException, NotFoundError

    try:
        with translated(settings):
            # By GET, as every server answers it; the 9.x client asks by POST, which only its own age knows.
            path, accept = f"/_resolve/index/{stream}", {"accept": "application/json"}
            answer = client.perform_request("GET", path, headers=accept).body
    except Trouble as trouble:
        if isinstance(trouble.__cause__, NotFoundError):
            return ()
        if not isinstance(trouble.__cause__, AuthorizationException):
            raise
        # A login that may ask for ids alone: one rollover is seen through, two in one doubt are not.
        if not since:
            raise Unreadable from trouble
        return (since,)
    found = answer.get("data_streams")
    if not isinstance(found, list):
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} did not say where lines of {stream} are; those in doubt wait on disk",
        )
    names = [str(name) for each in found for name in each["backing_indices"]]
    return names[names.index(since) :] if since in names else names[-_MOST_INDICES:]


def missing(
    client: Elasticsearch, settings: ShipSettings, indices: Sequence[str], lines: Sendable
) -> list[int]:
    """The places of the lines that are in none of the indices. Raises as `backing_indices` does."""
    left = [*range(len(lines))]
    ids = lines.ids()
    for index in indices:
        if left:
            stored = _stored(client, settings, index, [ids[place] for place in left])
            left = [place for place, found in zip(left, stored, strict=True) if not found]
    return left


def _stored(
    client: Elasticsearch, settings: ShipSettings, index: str, ids: Sequence[str]
) -> list[bool]:
    """For each id whether the index has it now, be it searchable yet or not."""
    from elasticsearch import AuthorizationException, NotFoundError

    try:
        with translated(settings):
            answer = client.mget(
                index=index, ids=ids, source=False, filter_path=("docs.found", "docs.error.type")
            ).body
    except Trouble as trouble:
        if isinstance(trouble.__cause__, AuthorizationException):
            raise Unreadable from trouble
        if isinstance(trouble.__cause__, NotFoundError):
            return [False] * len(ids)
        raise
    docs = answer.get("docs")
    if not isinstance(docs, list) or len(docs) != len(ids):
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} did not say which lines it has; those in doubt wait on disk",
        )
    if any(_error(doc) == "security_exception" for doc in docs):
        raise Unreadable
    if any(_is_no_answer(doc) for doc in docs):
        raise Trouble(
            Cause.OVERLOADED,
            f"{settings.url} cannot say now which lines it has; those in doubt wait on disk",
        )
    return [doc.get("found") is True for doc in docs]


def _is_no_answer(doc: dict[str, object]) -> bool:
    """Whether it is neither a yes nor a no; a backing index that is gone has no lines."""
    return "found" not in doc and _error(doc) != "index_not_found_exception"


def _error(doc: dict[str, object]) -> object:
    error = doc.get("error")
    return error.get("type") if isinstance(error, dict) else None


def _read_mark(path: Path, stream: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        found = msgspec.json.decode(os.read(fd, _LONGEST), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return ""
    finally:
        os.close(fd)
    return found.get("index", "") if found.get("stream") == stream else ""


def _sizes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if SEGMENT_NAME.match(entry.name):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found
