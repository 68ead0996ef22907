"""A question to the log lines, once: as Lucene for Grafana, as a search body for Elasticsearch.

The text of a query never comes from outside: values chosen by a reader are put in as terms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["LINES", "SHOWN", "LogQuery", "lucene", "search_body"]

LINES: Final = 200
"""How many of the newest lines a panel shows."""

SHOWN: Final = (
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "error.type",
    "error.message",
)
"""The fields shown beside a line's message; all others are one click away."""

_TRACE = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines of one service.

    levels: only these levels; empty for all. loggers: lines of these loggers as well, whatever their level.
    by_route: only the routes that are chosen on the board. without_route: where all are, lines that have none too.
    by_level, by_exception: only the levels and the types of exceptions that are chosen on the board.
    searchable: narrowed by the board's search field.
    """

    service: str
    levels: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    by_route: bool = False
    without_route: bool = False
    by_level: bool = False
    by_exception: bool = False
    searchable: bool = False


def _any_of(values: Sequence[str]) -> str:
    return "(" + " OR ".join(f'"{value}"' for value in values) + ")"


def _or_without(chosen: str, variable: str) -> str:
    """What is chosen, and where all are, lines that lack the field: every line has a level, which "all" matches."""
    return f"({chosen} OR log.level:/${{{variable}:regex}}/)"


def lucene(query: LogQuery) -> str:
    """The query as Grafana sends it, with the board's variables where they apply."""
    parts = [f'service.name:"{query.service}"']
    if query.levels:
        wanted = f"log.level:{_any_of(query.levels)}"
        if query.loggers:
            wanted = f"({wanted} OR log.logger:{_any_of(query.loggers)})"
        parts.append(wanted)
    if query.by_route:
        # As a pattern, because "all routes" is one: the Lucene form of the variable would quote it.
        chosen = "http.route:/${route:regex}/"
        parts.append(_or_without(chosen, "route") if query.without_route else chosen)
    if query.by_level:
        parts.append("log.level:/${level:regex}/")
    if query.by_exception:
        parts.append(_or_without("error.type:/${exception:regex}/", "exception"))
    if query.searchable:
        parts.append("($search)")
    return " AND ".join(parts)


def search_body(
    query: LogQuery,
    *,
    start_ms: int,
    end_ms: int,
    routes: Sequence[str] = (),
    levels: Sequence[str] = (),
    exceptions: Sequence[str] = (),
    trace: str = "",
) -> dict[str, object]:
    """The body of a `_search` for the newest lines between two times in milliseconds since 1970.

    routes, levels, exceptions: only these, empty for all.
    trace: a trace id of 32 hex digits; anything else is not put in.
    """
    filters: list[dict[str, object]] = [
        {"term": {"service.name": query.service}},
        {"range": {"@timestamp": {"gte": start_ms, "lte": end_ms, "format": "epoch_millis"}}},
    ]
    if query.levels:
        wanted: list[dict[str, object]] = [{"terms": {"log.level": list(query.levels)}}]
        if query.loggers:
            wanted.append({"terms": {"log.logger": list(query.loggers)}})
        filters.append({"bool": {"should": wanted, "minimum_should_match": 1}})
    if query.by_route and routes:
        filters.append({"terms": {"http.route": list(routes)}})
    elif query.by_route and not query.without_route:
        filters.append({"exists": {"field": "http.route"}})
    if query.by_level and levels:
        filters.append({"terms": {"log.level": list(levels)}})
    if query.by_exception and exceptions:
        filters.append({"terms": {"error.type": list(exceptions)}})
    if query.searchable and _TRACE.match(trace):
        filters.append({"term": {"trace.id": trace}})
    return {
        "size": LINES,
        "sort": [{"@timestamp": "desc"}],
        "query": {"bool": {"filter": filters}},
        "timeout": "5s",
    }
