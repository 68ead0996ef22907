"""Panels about log lines: whether they arrive, how many there are, and the lines themselves."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DROPPED,
    LOG_DUPLICATES,
    LOG_LEFT_OUT,
    LOG_LINES,
    LOG_RETRIES,
    LOG_SHIPPED,
    LOG_SHIPPER_UP,
    SPOOL_SIZE,
)
from taskscope.catalogue.promql import selector
from taskscope_dashboards.layout import COLUMNS, spread
from taskscope_dashboards.links import to_trace_lines
from taskscope_dashboards.logquery import LogQuery
from taskscope_dashboards.panel import Panel, Query, Step, View
from taskscope_dashboards.queries import per_second, value

__all__ = ["LEVEL_COLOURS", "log_lines", "logs_health", "request_lines"]

LEVEL_COLOURS = (
    ("debug", "blue"),
    ("info", "green"),
    ("warning", "yellow"),
    ("error", "red"),
    ("critical", "purple"),
)


def logs_health(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether lines are written, lost, delayed or refused on their way to Elasticsearch."""
    first = (_shipper(catalogue), _age(catalogue), _lost(catalogue))
    second = (_by_level(catalogue), _flow(catalogue), _spool(catalogue))
    return spread((*first, *second), per_line=3, height=7)


def _shipper(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Elasticsearch takes lines",
        description=(
            "Yes while Elasticsearch took the last batch; a second shipper, which waits to take over, does not count. "
            "No: it refuses or does not answer; lines wait on disk and none is lost until the spool is full. Look at "
            "Elasticsearch, then at the shipper's log."
        ),
        unit="bool_yes_no",
        view=View.STAT,
        queries=(Query(expr=f"max({selector(catalogue, LOG_SHIPPER_UP)})", legend="connected"),),
        steps=(Step(colour="red"), Step(colour="green", above=Decimal(1))),
    )


def _age(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Age of the oldest line not stored",
        description=(
            "How far the stored lines lag behind. Above a minute, what you read below is not the present: look at the "
            "shipper before you trust a silence."
        ),
        unit="s",
        queries=(Query(expr=value(catalogue, LOG_AGE, operator="max"), legend="age"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(60))),
    )


def _lost(catalogue: Catalogue) -> Panel:
    reason, level = LOG_DROPPED.label_names
    return Panel(
        title="Lines lost, per second",
        description=(
            "Lines dropped before the spool, by reason and level, and lines that Elasticsearch can never take. "
            "spool_full: bring Elasticsearch back or widen the spool. dead letters: read the dead-letter file for the "
            "refused field."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, LOG_DROPPED, by=(reason, level)),
                legend=f"{{{{{reason}}}}} {{{{{level}}}}}",
            ),
            Query(expr=per_second(catalogue, LOG_DEAD_LETTERS), legend="dead letters"),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.001"))),
    )


def _by_level(catalogue: Catalogue) -> Panel:
    level = LOG_LINES.labels[0].prometheus
    why = LOG_LEFT_OUT.labels[0].prometheus
    return Panel(
        title="Lines per second, by level",
        description=(
            "Lines written, by level. A rise of error or warning before users feel something is the earliest sign: "
            "read the lines below. Left out on purpose: beyond an event's rate limit, or not in the sample."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, LOG_LINES, by=(level,)), legend=f"{{{{{level}}}}}"),
            Query(
                expr=per_second(catalogue, LOG_LEFT_OUT, by=(why,)),
                legend=f"left out: {{{{{why}}}}}",
            ),
        ),
        stacked=True,
        colours=LEVEL_COLOURS,
    )


def _flow(catalogue: Catalogue) -> Panel:
    reason = LOG_RETRIES.labels[0].prometheus
    return Panel(
        title="Shipping, per second",
        description=(
            "Lines stored, lines refused as already stored, and batches sent again by reason. Retries that go on: "
            "overloaded means Elasticsearch is too small, refused means a wrong key or mapping."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, LOG_SHIPPED), legend="stored"),
            Query(expr=per_second(catalogue, LOG_DUPLICATES), legend="already stored"),
            Query(
                expr=per_second(catalogue, LOG_RETRIES, by=(reason,)),
                legend=f"retry: {{{{{reason}}}}}",
            ),
        ),
    )


def _spool(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Spool on disk",
        description=(
            "Bytes of lines that wait on disk. A line that only rises: the shipper stands still; at the spool's bound "
            "new lines are dropped and counted."
        ),
        unit="bytes",
        queries=(Query(expr=value(catalogue, SPOOL_SIZE), legend="waiting"),),
    )


def log_lines(catalogue: Catalogue) -> Panel:
    """The newest lines that are not routine: warnings, errors, and the server's own starts and stops."""
    return Panel(
        title="Warnings, errors, starts and stops",
        description=(
            "The newest lines of level warning and above, and the server's own starts and stops. Open one and follow "
            "its trace.id to every line of that request."
        ),
        unit="none",
        view=View.LOGS,
        logs=LogQuery(
            service=catalogue.service,
            levels=("warning", "error", "critical"),
            loggers=("uvicorn.error",),
        ),
        link=to_trace_lines(catalogue),
        width=COLUMNS,
        height=9,
    )


def request_lines(catalogue: Catalogue) -> Panel:
    """The lines of the routes chosen on the board."""
    lines = log_lines(catalogue)
    return replace(
        lines,
        title="Lines of the chosen routes",
        description=(
            "The newest lines of the chosen routes, narrowed by the search field above. Open one and follow its "
            "trace.id to every line of that request."
        ),
        logs=LogQuery(service=catalogue.service, by_route=True, searchable=True),
        height=11,
    )
