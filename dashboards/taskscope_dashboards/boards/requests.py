"""The board of requests: choose routes and methods, and see how many, how fast, how well, and their log lines."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.catalogue.promql import selector
from taskscope_dashboards.board import SEARCH, Board, Choice, Row, Variable
from taskscope_dashboards.boards.logs import request_lines
from taskscope_dashboards.boards.objectives import QUANTILES
from taskscope_dashboards.boards.oncall import OUTCOME_COLOURS, events
from taskscope_dashboards.layout import COLUMNS, spread
from taskscope_dashboards.links import to_requests
from taskscope_dashboards.panel import Column, Panel, Query, Step, View, unit_of
from taskscope_dashboards.queries import NOW, RATE, SERVER_FAULT, per_second, quantile, share, value

__all__ = ["requests"]

_ROUTE: Final = REQUEST_DURATION.label("http.route").prometheus
_METHOD: Final = REQUEST_DURATION.label("http.request.method").prometheus
_STATUS: Final = REQUEST_DURATION.label("http.response.status_code").prometheus
_CHOSEN: Final = (f'{_ROUTE}=~"$route"', f'{_METHOD}=~"$method"')
_P95: Final = Decimal("0.95")
_P99: Final = Decimal("0.99")


def requests(catalogue: Catalogue) -> Board:
    """The requests board of the catalogue's service."""
    rows = (
        Row(
            title="How many?",
            panels=spread(
                (_by_route(catalogue), _by_status(catalogue), _by_outcome(catalogue)),
                per_line=3,
                height=9,
            ),
        ),
        Row(
            title="How fast?",
            panels=spread(
                (
                    _heatmap(catalogue),
                    _quantiles(catalogue),
                    _by_route_quantile(catalogue, "p95", _P95),
                    _by_route_quantile(catalogue, "p99", _P99),
                ),
                per_line=2,
                height=9,
            ),
        ),
        Row(
            title="How well?",
            panels=spread(
                (
                    _errors(catalogue),
                    _size(catalogue),
                    _first_byte(catalogue),
                    _in_flight(catalogue),
                ),
                per_line=4,
            ),
        ),
        Row(title="Which are slowest?", panels=(_slowest(catalogue),)),
        Row(title="What do their lines say?", panels=(request_lines(catalogue),)),
    )
    return Board(
        service=catalogue.service,
        slug="requests",
        title=f"{catalogue.service} · requests",
        description="Requests by route and method: how many, how fast, how well, and their log lines.",
        rows=rows,
        variables=_variables(catalogue),
        annotations=events(catalogue),
        others=(("oncall", "On call"), ("runtime", "Runtime"), ("logs", "Logs")),
    )


def _variables(catalogue: Catalogue) -> tuple[Variable, ...]:
    source = selector(catalogue, REQUEST_DURATION, part="count")
    chosen = selector(catalogue, REQUEST_DURATION, part="count", matchers=(f'{_ROUTE}=~"$route"',))
    return (
        Variable(name="route", label="Route", query=f"label_values({source}, {_ROUTE})"),
        Variable(name="method", label="Method", query=f"label_values({chosen}, {_METHOD})"),
        Variable(name=SEARCH, label="Search lines", choice=Choice.TEXT, value="*"),
    )


def _by_route(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Requests per second, by route",
        description=(
            "Finished requests of the chosen routes. A route that grows alone: a client has changed or retries; look "
            "at its status codes."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), matchers=_CHOSEN),
                legend=f"{{{{{_ROUTE}}}}}",
            ),
        ),
        stacked=True,
        link=to_requests(catalogue, route_from_series=True),
    )


def _by_status(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Status codes",
        description=(
            "Finished requests by status code. Many 401 or 429: an attack or a client with an old token. 503: the "
            "service refuses work, see what is full on the on-call board."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, REQUEST_DURATION, by=(_STATUS,), matchers=_CHOSEN),
                legend=f"{{{{{_STATUS}}}}}",
            ),
        ),
        stacked=True,
        colours=(
            ("200", "green"),
            ("201", "light-green"),
            ("204", "dark-green"),
            ("304", "blue"),
            ("401", "dark-yellow"),
            ("404", "light-yellow"),
            ("409", "light-orange"),
            ("422", "orange"),
            ("429", "dark-orange"),
            ("500", "red"),
            ("503", "dark-red"),
        ),
    )


def _by_outcome(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Outcomes",
        description=(
            "How the chosen requests ended. cancelled or disconnected: clients gave up, so somebody waits too long; "
            "see the latency beside server_error."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, REQUEST_DURATION, by=("outcome",), matchers=_CHOSEN),
                legend="{{outcome}}",
            ),
        ),
        stacked=True,
        colours=OUTCOME_COLOURS,
    )


def _heatmap(catalogue: Catalogue) -> Panel:
    source = selector(catalogue, REQUEST_DURATION, part="bucket", matchers=_CHOSEN)
    return Panel(
        title="Durations",
        description=(
            "How many requests took how long. Two bands mean two kinds of requests, such as hits and misses of a "
            "cache; a band that climbs is a queue that fills."
        ),
        unit="s",
        view=View.HEATMAP,
        queries=(Query(expr=f"sum by (le) (increase({source}[{RATE}]))", legend="{{le}}"),),
    )


def _thresholds(catalogue: Catalogue) -> tuple[Step, ...]:
    bounds = sorted(
        o.threshold
        for o in catalogue.objectives
        if o.metric == REQUEST_DURATION and o.threshold is not None
    )
    if not bounds:
        return ()
    return (Step(colour="green"), *(Step(colour="red", above=bound) for bound in bounds))


def _quantiles(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Latency of the chosen requests",
        description=(
            "Quantiles of all chosen requests together; the red line is the objective's threshold. p99 far above p95: "
            "a few are stuck, open a trace from one of the points."
        ),
        unit=unit_of(REQUEST_DURATION),
        queries=tuple(
            Query(
                expr=quantile(catalogue, REQUEST_DURATION, q, matchers=_CHOSEN),
                legend=name,
                exemplars=name == "p95",
            )
            for name, q, _ in QUANTILES
        ),
        steps=_thresholds(catalogue),
        colours=tuple((name, colour) for name, _, colour in QUANTILES),
    )


def _by_route_quantile(catalogue: Catalogue, name: str, q: Decimal) -> Panel:
    share_of = "one request in twenty" if q == _P95 else "one request in a hundred"
    return Panel(
        title=f"{name} by route",
        description=(
            f"What {share_of} takes longer than, by route. One route rises: its query or what it calls; all rise "
            "together: the pool, the processor or the database."
        ),
        unit=unit_of(REQUEST_DURATION),
        queries=(
            Query(
                expr=quantile(catalogue, REQUEST_DURATION, q, by=(_ROUTE,), matchers=_CHOSEN),
                legend=f"{{{{{_ROUTE}}}}}",
            ),
        ),
        steps=_thresholds(catalogue),
        link=to_requests(catalogue, route_from_series=True),
    )


def _errors(catalogue: Catalogue) -> Panel:
    budgets = sorted(
        o.budget for o in catalogue.objectives if o.metric == REQUEST_DURATION and o.bad is not None
    )
    return Panel(
        title="Error ratio by route",
        description=(
            "Share of requests that fail through the service's own fault, by route; the red line is the error budget. "
            "Read the lines below for the cause."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(
                    catalogue, REQUEST_DURATION, SERVER_FAULT, by=(_ROUTE,), matchers=_CHOSEN
                ),
                legend=f"{{{{{_ROUTE}}}}}",
            ),
        ),
        steps=(
            (Step(colour="green"), *(Step(colour="red", above=b) for b in budgets))
            if budgets
            else ()
        ),
        link=to_requests(catalogue, route_from_series=True),
    )


def _size(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Response size, p95 by route",
        description=(
            "What one response in twenty is larger than, in bytes as sent. A route that grows with its data lacks "
            "pagination or compression."
        ),
        unit=unit_of(RESPONSE_SIZE),
        queries=(
            Query(
                expr=quantile(catalogue, RESPONSE_SIZE, _P95, by=(_ROUTE,), matchers=_CHOSEN),
                legend=f"{{{{{_ROUTE}}}}}",
            ),
        ),
    )


def _first_byte(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Time to first byte, p95 by route",
        description=(
            "What one response in twenty takes longer than to begin. Far below the full duration: the response is a "
            "stream, or a slow client reads it."
        ),
        unit=unit_of(TIME_TO_FIRST_BYTE),
        queries=(
            Query(
                expr=quantile(catalogue, TIME_TO_FIRST_BYTE, _P95, by=(_ROUTE,), matchers=_CHOSEN),
                legend=f"{{{{{_ROUTE}}}}}",
            ),
        ),
        link=to_requests(catalogue, route_from_series=True),
    )


def _in_flight(catalogue: Catalogue) -> Panel:
    busy = per_second(catalogue, REQUEST_DURATION, matchers=_CHOSEN, part="sum")
    return Panel(
        title="Concurrency",
        description=(
            "Requests of the whole service in flight, and the average that the chosen ones account for (their rate "
            "times their time). The second near the first: these routes are the load."
        ),
        unit="short",
        queries=(
            Query(expr=value(catalogue, ACTIVE_REQUESTS), legend="in flight, all"),
            Query(expr=busy, legend="chosen, on average"),
        ),
    )


def _slowest(catalogue: Catalogue) -> Panel:
    quantiles = tuple(
        Query(
            expr=quantile(
                catalogue, REQUEST_DURATION, q, by=(_ROUTE,), matchers=_CHOSEN, window=NOW
            ),
            legend=name,
            instant=True,
            unit="s",
        )
        for name, q, _ in reversed(QUANTILES)
    )
    rate = per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), matchers=_CHOSEN, window=NOW)
    ratio = share(
        catalogue, REQUEST_DURATION, SERVER_FAULT, by=(_ROUTE,), matchers=_CHOSEN, window=NOW
    )
    return Panel(
        title="Slowest routes",
        description=(
            "The chosen routes in the last 5 minutes, slowest first. A slow route with few requests matters less than "
            "a middling one with many. A click keeps that route alone."
        ),
        unit="s",
        view=View.TABLE,
        queries=(
            *quantiles,
            Query(expr=rate, legend="Requests/s", instant=True, unit="reqps"),
            Query(expr=ratio, legend="Error ratio", instant=True, unit="percentunit"),
        ),
        columns=(
            Column(label=_ROUTE, title="Route", link=to_requests(catalogue, route_from_cell=True)),
        ),
        width=COLUMNS,
        height=9,
    )
