"""Chooses where lines are read from, and says so: Elasticsearch if it answers, the spool if not, or both as one."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from taskscope.errors import SettingsError
from taskscope_exporters.logs.client import Trouble, connect, hushed
from taskscope_exporters.logs.reading.conditions import Condition, Is, Query, QueryError
from taskscope_exporters.logs.reading.entry import Entry
from taskscope_exporters.logs.reading.follow import Follower
from taskscope_exporters.logs.reading.server import Server, ServerError
from taskscope_exporters.logs.reading.source import MOST_LINES, Counts, ReadError
from taskscope_exporters.logs.reading.spooled import Spooled, SpoolFollow
from taskscope_exporters.logs.reading.times import spoken
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import stream_name

__all__ = ["Origin", "Reader", "Where", "reading"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,99}\Z")
_SECOND: Final = 1_000_000
_PROBED: Final = 7 * 86_400 * _SECOND
# A line that was shipped can be found within the second in which the server refreshes; this is ample.
_REFRESHED: Final = 15 * _SECOND


class Origin(Enum):
    """Where a person wants lines to be read from."""

    AUTO = "auto"
    ELASTICSEARCH = "elasticsearch"
    SPOOL = "spool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What is read. service, environment: None for all of them."""

    origin: Origin = Origin.AUTO
    spool: Path
    service: str | None = None
    environment: str | None = None

    def __post_init__(self) -> None:
        for option, name in (("service", self.service), ("environment", self.environment)):
            if name is not None and not _NAME.match(name):
                raise QueryError(
                    f"--{option}: {name[:40]!r} is no {option}'s name; write lower-case letters, digits, - _ or ."
                )

    @property
    def index(self) -> str:
        """The data streams that hold it, audit lines included."""
        service, environment = self.service or "*", self.environment or "*"
        names = [stream_name(service, environment)]
        if self.service:
            names.append(stream_name(service, environment, audit=True))
        return ",".join(names)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What a line must be to belong to it: names of streams may begin alike."""
        asked = (("service.name", self.service), ("service.environment", self.environment))
        return tuple(Is(field=field, value=value) for field, value in asked if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Lines of one or both origins, each once. said: one sentence on where they come from and how fresh they are."""

    where: Where
    said: str
    server: Server | None
    spool: Spooled | None

    @property
    def partial(self) -> bool:
        """Whether an answer of the server lacked a part of its lines."""
        return self.server is not None and self.server.partial

    def newest(self, query: Query, limit: int) -> list[Entry]:
        """The newest lines that the query asks for, at most `limit`, the oldest of them first. Raises ReadError."""
        if not 0 <= limit <= MOST_LINES:
            raise QueryError(f"--limit: {limit} is out of bounds; take 0 to {MOST_LINES}")
        query = self._within(query)
        found: dict[str, Entry] = {}
        for line in self._both(query, limit):
            found.setdefault(line.id, line)
            if len(found) >= limit:
                break
        return sorted(found.values(), key=lambda line: (line.at, line.id))

    def _both(self, query: Query, limit: int) -> Iterator[Entry]:
        if limit:
            sources = [source for source in (self.spool, self.server) if source is not None]
            yield from heapq.merge(
                *(source.newest(query, limit) for source in sources), key=lambda line: -line.at
            )

    def top(self, query: Query, field: str, rows: int) -> Counts:
        """The most frequent values of a field, of the server's lines if there is one. Raises ReadError."""
        source = self.server or self.spool
        if source is None:
            raise ReadError("there is nothing to read from; set ELASTICSEARCH_URL or name --spool")
        return source.top(self._within(query), field, rows)

    def marked(self) -> SpoolFollow | None:
        """The spool as it is now, to be taken before the lines that a follower is told of."""
        return self.spool.follow() if self.spool is not None else None

    def follower(self, query: Query, shown: Sequence[Entry], mark: SpoolFollow | None) -> Follower:
        """What comes after the lines shown; `mark` was taken before them."""
        return Follower(self._within(query), shown=shown, server=self.server, spool=mark)

    def _within(self, query: Query) -> Query:
        return replace(query, conditions=(*self.where.conditions, *query.conditions))


@contextmanager
def reading(where: Where, environ: Mapping[str, str], *, now: int) -> Iterator[Reader]:
    """A Reader of what answers. now: microseconds since 1970. Raises ReadError if nothing does, or SettingsError.

    Elasticsearch is asked if `ELASTICSEARCH_URL` names it; where the spool can be read here as well, what is not yet
    shipped is read from there.
    """
    configured = bool(environ.get("ELASTICSEARCH_URL", "").strip())
    if where.origin is Origin.SPOOL or (where.origin is Origin.AUTO and not configured):
        why = "" if configured else "; ELASTICSEARCH_URL is not set"
        yield _of_spool(where, now, why)
        return
    settings = replace(ShipSettings.from_environ(environ), spool=where.spool)
    with hushed():
        try:
            client = connect(settings)
        except Trouble as trouble:
            raise SettingsError(str(trouble)) from trouble
        with client:
            server = Server(client=client, url=settings.url, index=where.index)
            yield _chosen(where, server, now)


def _chosen(where: Where, server: Server, now: int) -> Reader:
    query = Query(conditions=where.conditions, since=now - _PROBED)
    try:
        newest = server.newest_at(query)
    except ServerError as error:
        if where.origin is Origin.ELASTICSEARCH:
            raise
        try:
            return _of_spool(where, now, f": {error.what}")
        except ReadError:
            raise error from None
    spool, unshipped = _beside(where, now)
    beside = f" and the spool {where.spool}" if spool is not None else ""
    newest = max(filter(None, (newest, unshipped)), default=None)
    return Reader(
        where=where,
        said=f"read from Elasticsearch at {server.url}{beside}; {_age(newest, now)}",
        server=server,
        spool=spool,
    )


def _beside(where: Where, now: int) -> tuple[Spooled | None, int | None]:
    """The spool for what is not shipped yet, and when its newest line was logged."""
    if where.origin is Origin.ELASTICSEARCH:
        return None, None
    spool = Spooled(folder=where.spool, unshipped_since=now - _REFRESHED)
    try:
        return spool, spool.newest_at()
    except ReadError:
        return (
            None,
            None,
        )  # another machine's, or another user's: the server's lines are all there are


def _of_spool(where: Where, now: int, why: str) -> Reader:
    spool = Spooled(folder=where.spool)
    newest = spool.newest_at()
    return Reader(
        where=where,
        said=f"read from the spool {where.spool}{why}; {_age(newest, now)}",
        server=None,
        spool=spool,
    )


def _age(newest: int | None, now: int) -> str:
    if newest is None:
        return "it holds no line of the last 7 days"
    return f"its newest line is {spoken((now - newest) / _SECOND)} old"
