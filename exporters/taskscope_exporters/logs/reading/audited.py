"""The audit lines of a service, wherever they are now: in Elasticsearch, in the spool, among the dead letters.

They are gathered for `verify`, which wants whole chains. Those that have a line since a moment are read from their
first line on, and the runs that they name as those before them too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from taskscope.audit import Audited, Head, read_heads
from taskscope.audit.links import Link
from taskscope.logs.looking import newest_first
from taskscope_exporters.logs.deadletters import FILE_NAME, TAKEN_NAME, read_letters
from taskscope_exporters.logs.reading.server import Server, ServerError
from taskscope_exporters.logs.reading.source import ReadError

__all__ = ["AuditServer", "Evidence"]

_PAGE: Final = 500
_CHAINS_AT_ONCE: Final = 256
_SECOND: Final = 1_000_000
# A line that was shipped can be found once the server has refreshed; until then it is read where it waited.
_REFRESHED: Final = 15 * _SECOND
_KEEP: Final = "1m"
_TIMEOUT: Final = "30s"
_FILTER: Final = (
    *("pit_id", "timed_out", "_shards.failed"),
    *("hits.hits._id", "hits.hits._source", "hits.hits.sort"),
)
_decode: Final = msgspec.json.Decoder(dict[str, object]).decode


class AuditServer(Server):
    """Elasticsearch as where audit lines are; index: the audit stream."""

    def all(self) -> Iterator[Audited]:
        """Every line of the stream, none if there is no such stream. Raises ReadError."""
        return self._scan({"match_all": {}})

    def of(self, chains: Sequence[str]) -> Iterator[Audited]:
        """Every line of those chains. Raises ReadError."""
        for first in range(0, len(chains), _CHAINS_AT_ONCE):
            yield from self._scan(
                {"terms": {"audit.chain": chains[first : first + _CHAINS_AT_ONCE]}}
            )

    def chains_since(self, since: int) -> set[str]:
        """The chains that have a line since then, in microseconds since 1970. Raises ReadError."""
        asked = {"range": {"@timestamp": {"gte": since // 1000, "format": "epoch_millis"}}}
        found = self._scan(asked, only=["audit.chain"])
        return {str(line.document.get("audit.chain", "")) for line in found}

    def _scan(
        self, query: Mapping[str, object], *, only: Sequence[str] | None = None
    ) -> Iterator[Audited]:
        pit = self._opened()
        after: list[Any] | None = None
        try:
            while pit:
                with self._asking():
                    answer = self.client.search(
                        pit={"id": pit, "keep_alive": _KEEP},
                        query=query,
                        size=_PAGE,
                        sort=[{"_shard_doc": "asc"}],
                        search_after=after,
                        source=None if only is None else {"includes": list(only)},
                        track_total_hits=False,
                        filter_path=_FILTER,
                        timeout=_TIMEOUT,
                    ).body
                self._note(answer)
                if self.partial:
                    raise ServerError(
                        f"Elasticsearch at {self.url} answered in part only",
                        "a shard failed or was too slow; try again",
                    )
                hits = answer.get("hits", {}).get("hits", [])
                yield from (Audited(id=hit["_id"], document=hit["_source"]) for hit in hits)
                if len(hits) < _PAGE:
                    return
                pit, after = str(answer.get("pit_id", pit)), hits[-1]["sort"]
        finally:
            with suppress(Exception):  # it ends by itself within a minute
                self.client.close_point_in_time(id=pit)

    def _opened(self) -> str:
        """A point in time; empty where there is no stream yet."""
        from elasticsearch import NotFoundError

        with self._asking():
            try:
                return str(self.client.open_point_in_time(index=self.index, keep_alive=_KEEP)["id"])
            except NotFoundError:
                return ""


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Where the lines of one service are.

    folder: where audit lines wait, or None. server: None where there is none. now: microseconds since 1970.
    since: the same, or None for all that there is. without_before: chains whose predecessors were not read, once
    `lines` has come to its end.
    """

    folder: Path | None
    server: AuditServer | None
    now: Callable[[], int] = _now_us
    since: int | None = None
    heads: Sequence[Head] = ()
    without_before: set[str] = field(default_factory=set)
    spooled: int = 0

    def lines(self) -> Iterator[Audited]:
        """All lines, one that is both on its way and stored twice. Raises ReadError.

        What the folder knows is read first: a line that is shipped meanwhile is found in Elasticsearch then.
        """
        self.heads, self.spooled = (), 0
        self.without_before.clear()
        wanted: set[str] = set()
        before: set[str] = set()
        if self.folder is not None:
            with _explained(self.folder):
                self.heads = read_heads(self.folder)
                wanted |= {head.claim.chain for head in self.heads}
                shipped_since = None if self.server is None else self.now() - _REFRESHED
                for line in _waiting(self.folder, shipped_since):
                    self.spooled += 1
                    _follow(line, wanted, before)
                    yield line
        if self.server is None:
            return
        if self.since is None:
            yield from self.server.all()
            return
        yield from self._since(self.server, self.since, wanted, before)

    def _since(
        self, server: AuditServer, since: int, wanted: set[str], before: set[str]
    ) -> Iterator[Audited]:
        wanted |= server.chains_since(since)
        for line in server.of(sorted(wanted)):
            _follow(line, wanted, before)
            yield line
        # Runs that ended before: they must be there still, but not those before them.
        self.without_before |= before - wanted
        yield from server.of(sorted(self.without_before))


class _explained:  # noqa: N801 # reads as what it does
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise ReadError(
                f"audit spool {self._folder} cannot be read: {error.strerror}; run as the user of the service, or "
                "name another folder with --spool"
            ) from error


def _waiting(folder: Path, shipped_since: int | None) -> Iterator[Audited]:
    """The lines in the folder: those that wait, those that were shipped just now, and those that were refused."""
    for seen in newest_first(folder, since=0, shipped_since=shipped_since):
        yield _line(seen.id, seen.raw)
    for name in (TAKEN_NAME, FILE_NAME):
        with suppress(FileNotFoundError):
            for letter in read_letters(folder / name)[0]:
                yield _line(letter.line.id, letter.line.raw)


def _line(id_: str, raw: bytes) -> Audited:
    try:
        return Audited(id=id_, document=_decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Audited(id=id_, document={})


def _follow(line: Audited, wanted: set[str], before: set[str]) -> None:
    """The line's chain is wanted, and the runs that it names are those before."""
    link = Link.of(line.document)
    if link is not None:
        wanted.add(link.chain)
        before |= {claim.chain for claim in link.claims}
