"""The board an engineer on call opens first: from the symptom to the route, to the trace, to the log line."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import PROCESS_START_TIME, REQUEST_DURATION
from taskscope.catalogue.promql import any_of, escape, selector
from taskscope_dashboards.board import Annotation, Board, Row
from taskscope_dashboards.boards.business import business
from taskscope_dashboards.boards.logs import log_lines, logs_health
from taskscope_dashboards.boards.objectives import (
    budget_left,
    burn_rate,
    burn_rate_now,
    quality,
)
from taskscope_dashboards.boards.saturation import instances, saturation, self_health
from taskscope_dashboards.layout import spread
from taskscope_dashboards.links import to_requests
from taskscope_dashboards.panel import Column, Link, Panel, Query, Step, View
from taskscope_dashboards.queries import (
    NOW,
    SERVER_FAULT,
    or_zero,
    per_second,
    quantile,
    share,
)

__all__ = ["OUTCOME_COLOURS", "events", "oncall"]

OUTCOME_COLOURS: Final = (
    ("ok", "green"),
    ("client_error", "yellow"),
    ("server_error", "red"),
    ("timeout", "orange"),
    ("cancelled", "purple"),
    ("disconnected", "blue"),
)
_ROUTE: Final = "http_route"
_TOP: Final = 10
_SEVERITY: Final = 'severity=~"page|ticket"'


def oncall(catalogue: Catalogue) -> Board:
    """The on-call board of the catalogue's service."""
    promise = (*_status(catalogue), *spread((burn_rate(catalogue),), per_line=1, height=7))
    if not catalogue.objectives:
        promise = spread((firing(catalogue), instances(catalogue)), per_line=2, height=6)
    rows = (
        Row(title="Is the promise kept?", panels=promise),
        Row(title="What do users feel?", panels=_symptoms(catalogue)),
        Row(
            title="Which route?",
            panels=spread((_by_errors(catalogue), _by_time(catalogue)), per_line=2),
        ),
        Row(title="What is full?", panels=spread(saturation(catalogue), per_line=3, height=7)),
        Row(title="What do the lines say?", panels=(*logs_health(catalogue), log_lines(catalogue))),
        Row(
            title="Is the business going on?",
            panels=spread(business(catalogue), per_line=3, height=7),
        ),
        Row(title="Can this board be believed?", panels=self_health(catalogue)),
    )
    return Board(
        service=catalogue.service,
        slug="oncall",
        title=f"{catalogue.service} · on call",
        description="From the symptom to the route, the trace and the log line. Read it from the top.",
        rows=tuple(row for row in rows if row.panels),
        annotations=events(catalogue),
        others=(("requests", "Requests"), ("runtime", "Runtime"), ("logs", "Logs")),
    )


def events(catalogue: Catalogue) -> tuple[Annotation, ...]:
    """Firing alerts and restarts, marked on every graph."""
    return (
        Annotation(
            name="Alerts",
            expr=f'ALERTS{{service="{escape(catalogue.service)}", alertstate="firing", {_SEVERITY}}}',
            title="{{alertname}}",
            text="{{slo}} {{severity}}",
            colour="red",
        ),
        Annotation(
            name="Restarts",
            expr=f"{selector(catalogue, PROCESS_START_TIME)} * 1000",
            title="{{instance}} started",
            text="{{job}}",
            colour="blue",
            value_is_time=True,
        ),
    )


def _status(catalogue: Catalogue) -> tuple[Panel, ...]:
    return spread(
        (budget_left(catalogue), burn_rate_now(catalogue), firing(catalogue), instances(catalogue)),
        per_line=4,
        height=6,
    )


def firing(catalogue: Catalogue) -> Panel:
    """The alerts that fire now and since when; one row that says so where none does."""
    service = f'service="{escape(catalogue.service)}"'
    since = f"ALERTS_FOR_STATE{{{service}, {_SEVERITY}}} * 1000"
    fires = f'ALERTS{{{service}, alertstate="firing", {_SEVERITY}}}'
    none = 'label_replace(vector(time() * 1000), "alertname", "none", "", "")'
    links = catalogue.links
    # Beside the boards they are reached by a path, at whatever address the reader came to the boards.
    runbooks = links.runbooks.removeprefix(links.grafana)
    link = (
        Link(title="Runbook", url=f"{runbooks}/${{__value.text:percentencode}}.md")
        if runbooks.startswith(("http://", "https://", "/"))
        else None  # a path inside the repository is no address for a browser
    )
    return Panel(
        title="Firing alerts",
        description="Alerts that fire now and since when. Take the oldest page first and follow its runbook.",
        unit="dateTimeFromNow",
        view=View.TABLE,
        queries=(
            Query(
                expr=f"({since} and ignoring (alertstate) {fires}) or on () {none}",
                legend="Since",
                instant=True,
            ),
        ),
        columns=(
            Column(label="alertname", title="Alert", link=link),
            Column(label="slo", title="Objective"),
            Column(label="severity", title="Severity"),
        ),
    )


def _symptoms(catalogue: Catalogue) -> tuple[Panel, ...]:
    traffic = Panel(
        title="Requests per second",
        description=(
            "Finished requests by outcome. A fall to nothing: look at the proxy and the instances. Red: go on to the "
            "routes below. A click opens the requests board."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, REQUEST_DURATION, by=("outcome",)), legend="{{outcome}}"
            ),
        ),
        stacked=True,
        colours=OUTCOME_COLOURS,
        link=to_requests(catalogue),
    )
    return spread((traffic, *quality(catalogue)), per_line=3, height=9)


def _route_column(catalogue: Catalogue) -> Column:
    return Column(label=_ROUTE, title="Route", link=to_requests(catalogue, route_from_cell=True))


def _by_errors(catalogue: Catalogue) -> Panel:
    label = REQUEST_DURATION.label(SERVER_FAULT.label).prometheus
    matcher = f'{label}=~"{any_of(SERVER_FAULT.values)}"'
    total = per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), window=NOW)
    failed = per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), matchers=(matcher,), window=NOW)
    ratio = share(catalogue, REQUEST_DURATION, SERVER_FAULT, by=(_ROUTE,), window=NOW)
    return Panel(
        title="Routes by server errors",
        description=(
            "The routes with most server errors in the last 5 minutes. One route: a fault in its code or data. All "
            "routes: something they share, see what is full. A click opens that route's requests."
        ),
        unit="reqps",
        view=View.TABLE,
        queries=(
            Query(
                expr=f"topk({_TOP}, {or_zero(failed, total)})",
                legend="Errors/s",
                instant=True,
            ),
            Query(expr=ratio, legend="Error ratio", instant=True, unit="percentunit"),
        ),
        columns=(_route_column(catalogue),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.001"))),
    )


def _by_time(catalogue: Catalogue) -> Panel:
    spent = per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), window=NOW, part="sum")
    busy = per_second(catalogue, REQUEST_DURATION, window=NOW, part="sum")
    p95 = quantile(catalogue, REQUEST_DURATION, Decimal("0.95"), by=(_ROUTE,), window=NOW)
    rate = per_second(catalogue, REQUEST_DURATION, by=(_ROUTE,), window=NOW)
    return Panel(
        title="Routes by time spent",
        description=(
            "Where the service spends its time in the last 5 minutes: share of all request time, p95 and rate. A route "
            "that rose to the top is what is slow. A click opens that route's requests."
        ),
        unit="percentunit",
        view=View.TABLE,
        queries=(
            Query(
                expr=f"topk({_TOP}, {spent} / scalar({busy} > 0))",
                legend="Share of time",
                instant=True,
            ),
            Query(expr=p95, legend="p95", instant=True, unit="s"),
            Query(expr=rate, legend="Requests/s", instant=True, unit="reqps"),
        ),
        columns=(_route_column(catalogue),),
    )
