"""The board below the requests: the process, what it depends on, and what the telemetry itself costs and loses."""

from __future__ import annotations

from decimal import Decimal

from taskscope.catalogue import Catalogue, Match
from taskscope.catalogue.builtin import (
    BACKGROUND_DURATION,
    DB_OPERATION_DURATION,
    DB_PENDING,
    DB_TIMEOUTS,
    DB_WAIT_TIME,
    EVENT_LOOP_LAG,
    FILES_SKIPPED,
    GC_PAUSE,
    LIBRARY_TIME,
    OVERFLOWED,
    REQUEST_DURATION,
    SCRAPE_DURATION,
    SCRAPE_SIZE,
    SERIES,
    THREADS,
    TRACED,
    WORKERS,
)
from taskscope_dashboards.board import Board, Row
from taskscope_dashboards.boards.browsers import browsers
from taskscope_dashboards.boards.dependencies import cache, http_client, streams
from taskscope_dashboards.boards.jobs import jobs
from taskscope_dashboards.boards.oncall import events
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Panel, Query, Step, unit_of
from taskscope_dashboards.queries import or_zero, per_second, quantile, share, value

__all__ = ["runtime"]

_EACH = ("instance",)
_P50 = Decimal("0.5")
_P95 = Decimal("0.95")
_P99 = Decimal("0.99")


def runtime(catalogue: Catalogue) -> Board:
    """The runtime board of the catalogue's service."""
    rows = (
        Row(title="Is the process well?", panels=_process(catalogue)),
        Row(title="Is the database quick?", panels=_database(catalogue)),
        Row(title="What runs after the response?", panels=_background(catalogue)),
        Row(title="Do open connections live?", panels=streams(catalogue)),
        Row(title="Does the cache help?", panels=cache(catalogue)),
        Row(title="Do the queues move?", panels=jobs(catalogue)),
        Row(title="Do the other services answer?", panels=http_client(catalogue)),
        Row(title="What do browsers see?", panels=browsers(catalogue)),
        Row(title="What does the telemetry cost?", panels=_cost(catalogue)),
        Row(title="What does the telemetry leave out?", panels=_left_out(catalogue)),
    )
    return Board(
        service=catalogue.service,
        slug="runtime",
        title=f"{catalogue.service} · runtime",
        description="The process, what it depends on, and what the telemetry costs and leaves out.",
        rows=tuple(row for row in rows if row.panels),
        annotations=events(catalogue),
        others=(("oncall", "On call"), ("requests", "Requests"), ("logs", "Logs")),
    )


def _process(catalogue: Catalogue) -> tuple[Panel, ...]:
    lag = Panel(
        title="Event-loop lag",
        description=(
            "How late the event loop wakes what waits, for one wake-up in a hundred; every request of the process "
            "waits along. Above 50 ms: something computes or blocks in an async function; move it to a thread, or add "
            "an instance. Above 250 ms for five minutes there is a ticket."
        ),
        unit="s",
        queries=(
            Query(
                expr=quantile(catalogue, EVENT_LOOP_LAG, _P99, by=_EACH), legend="p99 {{instance}}"
            ),
            Query(expr=quantile(catalogue, EVENT_LOOP_LAG, _P50), legend="p50 of all"),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.25"))),
    )
    generation = GC_PAUSE.label_names
    pauses = Panel(
        title="Time in the garbage collector",
        description=(
            "Share of a core that collections take, by generation. Generation 2 above a few per cent: many long-lived "
            "objects; look for a cache that grows, or freeze what was made at start."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=per_second(catalogue, GC_PAUSE, by=generation, part="sum"),
                legend=f"{{{{{generation[0]}}}}}",
            ),
        ),
        stacked=True,
    )
    threads = Panel(
        title="Threads",
        description=(
            "Threads of each process. At the top of the pool (40 for synchronous endpoints): such endpoints wait for "
            "one another. A line that only rises: a thread is started and never ends."
        ),
        unit=unit_of(THREADS),
        queries=(Query(expr=value(catalogue, THREADS, by=_EACH), legend="{{instance}}"),),
    )
    return spread((lag, pauses, threads), per_line=3, height=7)


def _database(catalogue: Catalogue) -> tuple[Panel, ...]:
    operation, role, shard, outcome = DB_OPERATION_DURATION.label_names
    where = (operation, role, shard)
    duration = Panel(
        title="Statements, p95",
        description=(
            "What one statement in twenty takes longer than, by operation, role and shard. One shard rises: data or "
            "machine; all rise together: locks, or the disk."
        ),
        unit=unit_of(DB_OPERATION_DURATION),
        queries=(
            Query(
                expr=quantile(catalogue, DB_OPERATION_DURATION, _P95, by=where),
                legend=" ".join(f"{{{{{name}}}}}" for name in where),
            ),
        ),
    )
    rate = Panel(
        title="Statements per second",
        description="Statements by operation. Many more than requests: a query in a loop.",
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, DB_OPERATION_DURATION, by=(operation,)),
                legend=f"{{{{{operation}}}}}",
            ),
        ),
        stacked=True,
    )
    failing = Panel(
        title="Statements that fail",
        description=(
            "Share of statements that ended in an error, by role and shard. Above 0: read the lines with error.type on "
            "the on-call board; one shard alone is that database's trouble."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(
                    catalogue,
                    DB_OPERATION_DURATION,
                    Match(label=outcome, values=("error",)),
                    by=(role, shard),
                ),
                legend=f"{{{{{role}}}}} {{{{{shard}}}}}",
            ),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.01"))),
    )
    return spread((duration, rate, failing, *_pool(catalogue)), per_line=3, height=7)


def _pool(catalogue: Catalogue) -> tuple[Panel, ...]:
    waiting = Panel(
        title="Waiting for a connection",
        description=(
            "Callers that wait for a connection now. Above 0 for more than a moment: the pool is full, see which "
            "statements hold it."
        ),
        unit=unit_of(DB_PENDING),
        queries=(Query(expr=value(catalogue, DB_PENDING, by=_EACH), legend="{{instance}}"),),
    )
    gave_up = Panel(
        title="Gave up waiting, per second",
        description=(
            "Callers that waited for a connection as long as they may and had none; each is most likely a request that "
            "failed. Above 0.1 for five minutes there is a ticket."
        ),
        unit="suffix: /s",
        queries=(Query(expr=per_second(catalogue, DB_TIMEOUTS), legend="gave up"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.1"))),
    )
    wait = Panel(
        title="Time to a connection, p95",
        description=(
            "What one caller in twenty waits longer than for a connection. It is added to the request's own time: "
            "with it near 0 a wider pool helps nothing."
        ),
        unit=unit_of(DB_WAIT_TIME),
        queries=(Query(expr=quantile(catalogue, DB_WAIT_TIME, _P95), legend="p95"),),
    )
    return (waiting, wait, gave_up)


def _background(catalogue: Catalogue) -> tuple[Panel, ...]:
    outcome = BACKGROUND_DURATION.label("outcome").prometheus
    some = value(catalogue, SERIES, operator="max")
    rate = Panel(
        title="Background tasks per second",
        description=(
            "Tasks that ended after their response was sent, by outcome. Errors here reach no client: the log line of "
            "the task is the only witness."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=or_zero(
                    per_second(catalogue, BACKGROUND_DURATION, by=(outcome,)),
                    f'label_replace({some}, "{outcome}", "ok", "", "")',
                ),
                legend=f"{{{{{outcome}}}}}",
            ),
        ),
        stacked=True,
        colours=(("ok", "green"), ("error", "red"), ("cancelled", "purple")),
    )
    busy = Panel(
        title="Background tasks at work",
        description=(
            "How many background tasks run at a time on average (their rate times their time). A steady rise: they "
            "come faster than they end; give the work to a queue."
        ),
        unit="short",
        queries=(
            Query(
                expr=or_zero(per_second(catalogue, BACKGROUND_DURATION, part="sum"), some),
                legend="at work",
            ),
        ),
    )
    return spread((rate, busy), per_line=2, height=7)


def _cost(catalogue: Catalogue) -> tuple[Panel, ...]:
    spent = per_second(catalogue, LIBRARY_TIME)
    requests = per_second(catalogue, REQUEST_DURATION)
    time = Panel(
        title="Library time per request",
        description=(
            "Time of the library itself within a request, on average. Above 100 µs: compare with the time of the whole "
            "request, then lower the traced share or switch the access line off."
        ),
        unit="s",
        queries=(Query(expr=f"{spent} / ({requests} > 0)", legend="per request"),),
    )
    series = Panel(
        title="Series",
        description=(
            "Series that each process holds; at most 10,000 label sets. A steady rise: a label has values without end, "
            "see what was folded."
        ),
        unit=unit_of(SERIES),
        queries=(Query(expr=value(catalogue, SERIES, by=_EACH), legend="{{instance}}"),),
    )
    scrape = Panel(
        title="Rendering a scrape, p99",
        description="How long the slowest scrapes take to render. Above a second: too many series.",
        unit=unit_of(SCRAPE_DURATION),
        queries=(Query(expr=quantile(catalogue, SCRAPE_DURATION, _P99), legend="p99"),),
    )
    size = Panel(
        title="Size of a scrape",
        description="Bytes of the last answer to Prometheus, before compression. It grows with the series.",
        unit=unit_of(SCRAPE_SIZE),
        queries=(
            Query(
                expr=value(catalogue, SCRAPE_SIZE, operator="max", by=_EACH), legend="{{instance}}"
            ),
        ),
    )
    return spread((time, series, scrape, size), per_line=4, height=7)


def _left_out(catalogue: Catalogue) -> tuple[Panel, ...]:
    metric, label = OVERFLOWED.label_names
    (reason,), (decision,) = FILES_SKIPPED.label_names, TRACED.label_names
    none = f'label_replace({value(catalogue, SERIES, operator="max")}, "{metric}", "none", "", "")'
    folded = Panel(
        title="Folded observations per second",
        description=(
            "Observations whose label value was folded into __overflow__, by metric and label. Above 0: a label takes "
            "values from users; bound it, or drop it."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=f"({per_second(catalogue, OVERFLOWED, by=(metric, label))} or on () 0 * {none})",
                legend=f"{{{{{metric}}}}} {{{{{label}}}}}",
            ),
        ),
    )
    traces = Panel(
        title="Decisions about traces",
        description=(
            "Requests per second whose trace was kept, passed over, kept late because they failed or were slow, or "
            "dropped by the cap. capped above 0: raise the cap, or lower the share."
        ),
        unit="reqps",
        queries=(
            Query(expr=per_second(catalogue, TRACED, by=(decision,)), legend=f"{{{{{decision}}}}}"),
        ),
        stacked=True,
    )
    workers = Panel(
        title="Workers in a scrape",
        description=(
            "Worker processes whose series are in the answers, over all instances. Below what you started: one is "
            "down, or its file is left out."
        ),
        unit=unit_of(WORKERS),
        queries=(Query(expr=value(catalogue, WORKERS, by=_EACH), legend="{{instance}}"),),
        stacked=True,
    )
    skipped = Panel(
        title="Workers' files left out, per second",
        description=(
            "Files in the workers' folder that could not be read, by reason. Above 0: the log line names the file; "
            "follow the runbook WorkerFilesSkipped."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, FILES_SKIPPED, by=(reason,)),
                legend=f"{{{{{reason}}}}}",
            ),
        ),
    )
    return spread((folded, traces, workers, skipped), per_line=4, height=7)
