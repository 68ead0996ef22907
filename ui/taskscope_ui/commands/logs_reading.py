"""`taskscope logs tail`, `search`, `trace` and `top`: the lines for whoever is on call, at a terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from taskscope_ui.commands.logs_options import (
    Environment,
    From,
    Full,
    Level,
    Limit,
    Outcome,
    Route,
    Service,
    Since,
    Spool,
    Status,
    Until,
    Utc,
    Words,
    conditions_of,
    query_of,
    reader_of,
)
from taskscope_ui.commands.options import Json
from taskscope_ui.commands.terminal import plural, say, table

if TYPE_CHECKING:
    from taskscope_exporters.logs.reading.conditions import Query
    from taskscope_exporters.logs.reading.entry import Entry
    from taskscope_exporters.logs.reading.reader import Reader
    from taskscope_exporters.logs.reading.source import Counts
    from taskscope_ui.commands.logs_screen import Screen

__all__ = ["add_to", "search", "tail", "top", "trace"]

_TRACE_LINES: Final = 2_000


def add_to(logs: typer.Typer) -> None:
    """The group `logs` offers these commands."""
    for command in (tail, search, trace, top):
        logs.command()(command)


def tail(
    words: Words = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
    limit: Limit = 20,
    since: Since = "1h",
    level: Level = None,
    route: Route = None,
    outcome: Outcome = None,
    status: Status = None,
    service: Service = None,
    environment: Environment = None,
    spool: Spool = None,
    origin: From = "auto",
    utc: Utc = False,
    full: Full = False,
    as_json: Json = False,
) -> int:
    """Show the newest log lines, and with -f those that come.

    Lines are read from Elasticsearch if ELASTICSEARCH_URL names it and it answers, together with what the spool
    has not shipped yet; else from the spool. One line on stderr says which. With -f a line that reaches
    Elasticsearch within a minute is shown, once; what comes later, `logs search` finds.
    Exits 0 with lines, 1 without any, 2 with an error; with -f, 0 at Ctrl-C.

    \b
    Examples:
      taskscope logs tail -f --level warning
      taskscope logs tail -n 50 --route "/tasks/*" --since 10m
      taskscope logs tail -f --json exception:* | jq .message
    """
    conditions = conditions_of(words, level, route, outcome, status)
    with reader_of(origin, spool, service, environment) as reader:
        from taskscope_ui.commands.logs_screen import Screen

        query = query_of(conditions, since, None, utc)
        screen = Screen(json=as_json, utc=utc, full=full)
        if follow:
            from taskscope_ui.commands.logs_follow import followed

            return followed(reader, query, limit, screen)
        return _shown(reader, screen, reader.newest(query, limit))
    return 0  # a reader that went away


def search(
    words: Words = None,
    since: Since = "1h",
    until: Until = None,
    level: Level = None,
    route: Route = None,
    outcome: Outcome = None,
    status: Status = None,
    service: Service = None,
    environment: Environment = None,
    limit: Limit = 100,
    spool: Spool = None,
    origin: From = "auto",
    utc: Utc = False,
    full: Full = False,
    as_json: Json = False,
) -> int:
    """Find log lines by words and by fields.

    A word is looked for in message, exception and stack trace, as a whole and in any case; it also finds a value
    of the service's own keys. A field is an Elastic Common Schema name or a short one (level logger service
    instance trace span request method route path status duration client user exception error stack event), or
    a key of the service's own. Fields take value, val*, "two words", * for any; numbers 500, 5xx, >=500, 400..499;
    duration >250ms. A minus before a term means none of these: put it behind another term, or after --.
    Shows the newest --limit lines, the oldest of them first.
    Exits 0 with lines, 1 without any, as grep does, 2 with an error.

    \b
    Examples:
      taskscope logs search timeout --since 2h
      taskscope logs search '"pool exhausted" -route:/livez' --since 03:00 --until 03:30
      taskscope logs search exception:*Timeout* duration:'>1s' --status 5xx --json
      taskscope logs search task_id:4711 --since 7d
    """
    from taskscope_ui.commands.logs_screen import Screen, note

    conditions = conditions_of(words, level, route, outcome, status)
    code = 0  # also of a reader that went away
    with reader_of(origin, spool, service, environment) as reader:
        lines = reader.newest(query_of(conditions, since, until, utc), limit)
        code = _shown(reader, Screen(json=as_json, utc=utc, full=full), lines)
        if limit and len(lines) == limit:
            note(
                f"these are the newest {limit}, there may be more; take a shorter time, or --limit"
            )
    return code


def trace(
    id: Annotated[  # noqa: A002 # its name everywhere
        str,
        typer.Argument(metavar="ID", help="A trace's id, or a request's: ours or the caller's."),
    ],
    since: Since = "7d",
    service: Service = None,
    environment: Environment = None,
    spool: Spool = None,
    origin: From = "auto",
    utc: Utc = False,
    full: Full = False,
    as_json: Json = False,
) -> int:
    """Show every line of one trace in the order of time.

    Each with its offset from the first in milliseconds, how long it took, and indented by its span as far as the
    lines tell; then one line on what it came to. By a request's id the rest of its trace is found as well.
    Exits 0 with lines, 1 without any, 2 with an error.

    \b
    Examples:
      taskscope logs trace 0af7651916cd43dd8448eb211c80319c
      taskscope logs trace 01JD5R8K3M --since 30d --full
    """
    from taskscope_exporters.logs.reading.words import of_trace
    from taskscope_ui.commands.logs_screen import Screen, note

    asked = of_trace(id)
    with reader_of(origin, spool, service, environment) as reader:
        query = query_of((asked,), since, None, utc)
        lines = _whole_trace(reader, query, id)
        if not lines:
            note(f"no line of {id} within --since {since}; look further back with --since")
            return 1
        Screen(json=as_json, utc=utc, full=full).trace(id, lines)
        if len(lines) >= _TRACE_LINES:
            note(f"these are the newest {_TRACE_LINES} lines of it; earlier ones are left out")
        _tell_if_partial(reader)
    return 0


def _whole_trace(reader: Reader, query: Query, id: str) -> list[Entry]:  # noqa: A002
    """The lines under the id; where it is a request's and names one trace, that trace's too."""
    from taskscope_exporters.logs.reading.conditions import OneOf

    lines = reader.newest(query, _TRACE_LINES)
    traces = {line.text("trace.id") for line in lines} - {"", id}
    if not traces or len(traces) > 8:
        return lines
    wider = OneOf(field="trace.id", values=tuple(sorted(traces)))
    more = reader.newest(replace(query, conditions=(wider,)), _TRACE_LINES)
    found = {line.id: line for line in (*lines, *more)}
    return sorted(found.values(), key=lambda line: (line.at, line.id))


def top(
    words: Words = None,
    by: Annotated[
        str, typer.Option(metavar="FIELD", help="exception, route, event, or another field.")
    ] = "exception",
    since: Since = "1h",
    until: Until = None,
    level: Level = None,
    route: Route = None,
    outcome: Outcome = None,
    status: Status = None,
    service: Service = None,
    environment: Environment = None,
    rows: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="The most rows.")] = 20,
    spool: Spool = None,
    origin: From = "auto",
    utc: Utc = False,
    as_json: Json = False,
) -> int:
    """Count lines by exception, route, event or another field.

    A row has the count, its share, the time of the newest such line and that line's trace.
    Events are counted of the newest 10,000 lines in Elasticsearch, other fields of all.
    Exits 0 with rows, 1 without any, 2 with an error.

    \b
    Examples:
      taskscope logs top --since 2h
      taskscope logs top --by route --status 5xx
      taskscope logs top --by event --level warning --since 03:00
    """
    from taskscope_exporters.logs.reading.words import field_of
    from taskscope_ui.commands.logs_screen import note

    field = field_of(by)
    conditions = conditions_of(words, level, route, outcome, status)
    with reader_of(origin, spool, service, environment) as reader:
        counts = reader.top(query_of(conditions, since, until, utc), field, rows)
        if counts.rows:
            _print_counts(by, counts, utc=utc, as_json=as_json)
        if counts.cut:
            note(f"counted of the newest {plural(counts.lines, 'line')} alone; take a shorter time")
        _tell_if_partial(reader)
    return 0 if counts.rows else 1


def _print_counts(by: str, counts: Counts, *, utc: bool, as_json: bool) -> None:
    from taskscope_ui.commands.logs_screen import as_json as encoded
    from taskscope_ui.loglines.line import Look, when
    from taskscope_ui.loglines.pieces import shown

    zone = UTC if utc else None
    today = datetime.now(UTC).astimezone(zone).date()
    look = Look(zone=zone, today=today, wide=not sys.stdout.isatty())
    rows = []
    for row in counts.rows:
        trace_id = row.newest.text("trace.id") or row.newest.text("http.request.id")
        if as_json:
            newest = when(row.newest.at, Look(zone=UTC, wide=True))
            say(encoded({by: row.value, "count": row.count, "newest": newest, "trace": trace_id}))
            continue
        share = f"{row.count / counts.lines:.0%}"
        name = shown(row.value.removeprefix("builtins."))
        rows.append((str(row.count), share, when(row.newest.at, look), name, shown(trace_id)))
    if not as_json:
        table(f"{counts.lines} lines by {by}", ("count", "share", "newest", by, "trace"), rows)


def _shown(reader: Reader, screen: Screen, lines: list[Entry]) -> int:
    screen.lines(lines)
    _tell_if_partial(reader)
    return 0 if lines else 1


def _tell_if_partial(reader: Reader) -> None:
    from taskscope_ui.commands.logs_screen import note

    if reader.partial:
        note("Elasticsearch answered in part only: a shard failed or was too slow; lines may lack")
