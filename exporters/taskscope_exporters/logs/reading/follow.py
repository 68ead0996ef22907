"""New lines as they come, each once: from the spool at once, from Elasticsearch when it has them.

Elasticsearch is asked for all that is younger than a moment and not among the lines already shown. So a line that
arrives late is shown late, and none twice; how late it may be is bounded by what can be remembered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from taskscope_exporters.logs.reading.conditions import Query
from taskscope_exporters.logs.reading.entry import Entry
from taskscope_exporters.logs.reading.server import PAGE, Server
from taskscope_exporters.logs.reading.spooled import SpoolFollow

__all__ = ["LATE_S", "MOST_KNOWN", "Follower", "Known"]

LATE_S: Final = 60
"""How long after it was logged a line may come to Elasticsearch and still be shown."""
MOST_KNOWN: Final = 10_000
"""The most lines that are remembered; when more come in `LATE_S`, less lateness is made up for."""

_PAGES: Final = 20
_MILLISECOND: Final = 1_000
_SECOND: Final = 1_000_000


class Known:
    """The ids of the lines shown that are not older than `floor`, in microseconds since 1970."""

    def __init__(self, floor: int, most: int = MOST_KNOWN) -> None:
        self.floor = floor
        self._most = most
        self._ids: set[str] = set()
        self._oldest: list[tuple[int, str]] = []

    def __contains__(self, id: str) -> bool:  # noqa: A002 # its name everywhere
        return id in self._ids

    @property
    def ids(self) -> Sequence[str]:
        """All that are remembered."""
        return sorted(self._ids)

    def add(self, lines: Iterable[Entry]) -> None:
        """The lines are remembered; if that is too many, the oldest are not, and `floor` rises above them."""
        for line in lines:
            if line.id not in self._ids and line.at >= self.floor:
                self._ids.add(line.id)
                heapq.heappush(self._oldest, (line.at, line.id))
        while len(self._ids) > self._most:
            self._forget()

    def forget_before(self, at: int) -> None:
        """No line older than that is asked for any more."""
        while self._oldest and self._oldest[0][0] < at:
            self._forget()
        self.floor = max(self.floor, at)

    def _forget(self) -> None:
        at, id = heapq.heappop(self._oldest)  # noqa: A001 # its name everywhere
        self._ids.discard(id)
        # The server compares by the millisecond: one that was forgotten must not be found again.
        self.floor = max(self.floor, (at // _MILLISECOND + 1) * _MILLISECOND)


class Follower:
    """What comes after the lines that were `shown`.

    query: without an end; its beginning is where lines would be asked for that are not among those shown.
    spool, server: either may be None. The spool's view must be older than the lines shown, so that none lies between.
    """

    def __init__(
        self,
        query: Query,
        *,
        shown: Sequence[Entry],
        server: Server | None,
        spool: SpoolFollow | None,
        most: int = MOST_KNOWN,
    ) -> None:
        self._query = query
        self._server = server
        self._spool = spool
        self._known = Known(query.since, most)
        self._known.add(shown)

    def from_spool(self) -> list[Entry]:
        """What the spool holds since the last call, in the order of time."""
        found = self._spool.lines(self._query) if self._spool is not None else []
        return self._unseen(found)

    def from_server(self, *, now: int) -> list[Entry]:
        """What Elasticsearch holds that was not shown. Raises ReadError; the next call makes up for it.

        now: microseconds since 1970.
        """
        if self._server is None:
            return []
        found: list[Entry] = []
        for _ in range(_PAGES):
            page = self._server.after(
                replace(self._query, since=self._known.floor), known=self._known.ids
            )
            found += self._unseen(page)
            if len(page) < PAGE:
                break
        # Only after an answer: what is logged while the server is away is younger than the last one.
        self._known.forget_before(now - LATE_S * _SECOND)
        return sorted(found, key=lambda line: (line.at, line.id))

    def _unseen(self, lines: Sequence[Entry]) -> list[Entry]:
        fresh = [line for line in lines if line.id not in self._known]
        self._known.add(fresh)
        return sorted(fresh, key=lambda line: (line.at, line.id))

    def close(self) -> None:
        """Nothing is held open any more."""
        if self._spool is not None:
            self._spool.close()
