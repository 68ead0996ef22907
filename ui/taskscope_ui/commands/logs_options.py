"""What the commands that read logs have in common: their options, and the question and the reader these make."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from taskscope_exporters.logs.reading.conditions import Condition, Query
    from taskscope_exporters.logs.reading.reader import Reader

__all__ = [
    "Environment",
    "From",
    "Full",
    "Level",
    "Limit",
    "Outcome",
    "Route",
    "Service",
    "Since",
    "Spool",
    "Status",
    "Until",
    "Utc",
    "Words",
    "conditions_of",
    "now_us",
    "query_of",
    "reader_of",
]

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[WORDS]...",
        help="timeout, time*, '\"pool exhausted\"', field:value, field:val*, -field:value; all must hold.",
        show_default=False,
    ),
]
Since = Annotated[
    str, typer.Option(metavar="TIME", help="From when: 10m, 1h30m, 03:12 or 2026-11-24T03:12.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Up to when; the same forms.")]
Level = Annotated[str | None, typer.Option(metavar="LEVEL", help="This level and those above.")]
Route = Annotated[
    str | None, typer.Option(metavar="ROUTE", help="The route's template; a * stands for any text.")
]
Status = Annotated[str | None, typer.Option(metavar="STATUS", help="503, 5xx, >=500 or 400..499.")]
Outcome = Annotated[
    str | None,
    typer.Option(metavar="WORD", help="success, failure, or ok, server_error, cancelled, …"),
]
Service = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One service alone; OTEL_SERVICE_NAME says the same."),
]
Environment = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One environment alone; TASKSCOPE_ENVIRONMENT, the same."),
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", min=0, max=10_000, help="The most lines, the newest ones.")
]
Spool = Annotated[
    Path | None,
    typer.Option("--spool", metavar="DIR", help="The spool's folder; TASKSCOPE_SPOOL, the same."),
]
From = Annotated[
    str,
    typer.Option("--from", metavar="ORIGIN", help="auto, elasticsearch or spool."),
]
Utc = Annotated[bool, typer.Option("--utc", help="Times in UTC, not in this machine's zone.")]
Full = Annotated[
    bool, typer.Option("--full", help="Every field, nothing cut, stack traces below their line.")
]


def conditions_of(
    words: list[str] | None,
    level: str | None,
    route: str | None,
    outcome: str | None,
    status: str | None,
) -> tuple[Condition, ...]:
    """What the words and the options ask for. Raises QueryError."""
    from taskscope_exporters.logs.reading import words as reading

    found = list(reading.parse(" ".join(words or ())))
    if level is not None:
        found.append(reading.at_least(level))
    if route is not None:
        found.append(reading.exactly("http.route", route))
    if outcome is not None:
        found.append(reading.of_outcome(outcome))
    if status is not None:
        found.append(reading.of_status(status))
    return tuple(found)


def query_of(conditions: tuple[Condition, ...], since: str, until: str | None, utc: bool) -> Query:
    """The conditions within the time. Raises QueryError."""
    from taskscope_exporters.logs.reading.conditions import Query, QueryError
    from taskscope_exporters.logs.reading.times import moment

    now, zone = datetime.now(UTC), UTC if utc else None
    begin = moment(since, now=now, zone=zone)
    end = None if until is None else moment(until, now=now, zone=zone)
    if end is not None and end <= begin:
        raise QueryError(f"--until {until} is not after --since {since}; swap them")
    return Query(conditions=conditions, since=begin, until=end)


@contextmanager
def reader_of(
    origin: str, spool: Path | None, service: str | None, environment: str | None
) -> Iterator[Reader]:
    """A reader of what answers; stderr says what that is. A pipe whose reader goes away ends the block in silence."""
    from taskscope.settings import Settings
    from taskscope_exporters.logs.reading.conditions import QueryError
    from taskscope_exporters.logs.reading.reader import Origin, Where, reading
    from taskscope_ui.commands.logs_screen import note
    from taskscope_ui.commands.logs_where import environ_of

    if origin not in {each.value for each in Origin}:
        raise QueryError(f"--from {origin!r} is none; take auto, elasticsearch or spool")
    folder = spool or Settings.from_environ(os.environ).spool
    environ = environ_of(os.environ, folder)
    where = Where(
        origin=Origin(origin),
        spool=folder,
        service=service or environ.get("OTEL_SERVICE_NAME") or None,
        environment=environment or environ.get("TASKSCOPE_ENVIRONMENT") or None,
    )
    with reading(where, environ, now=now_us()) as reader:
        note(reader.said)
        try:
            yield reader
        except BrokenPipeError:
            # Here, because the command line's own library would end with code 1, which says that no line was found.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
