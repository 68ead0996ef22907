"""Panels about the promises: what is left of each budget, how fast it burns, and what breaks it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Metric, Objective
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.promql import burn_ratio, escape
from taskscope_dashboards.panel import Panel, Query, Step, View, unit_of
from taskscope_dashboards.queries import RATE, SERVER_FAULT, quantile, share

__all__ = ["QUANTILES", "budget_left", "burn_rate", "burn_rate_now", "latency", "quality"]

QUANTILES: Final = (
    ("p50", Decimal("0.5"), "blue"),
    ("p95", Decimal("0.95"), "yellow"),
    ("p99", Decimal("0.99"), "orange"),
)
_PAGE_RATE: Final = Decimal("14.4")
"""At this burn rate a 30-day budget is 2 % gone in an hour (SRE Workbook, ch. 5)."""


def _recorded(catalogue: Catalogue, name: str) -> str:
    return f'{name}{{service="{escape(catalogue.service)}"}}'


def budget_left(catalogue: Catalogue) -> Panel:
    """The share of each objective's error budget that is left."""
    return Panel(
        title="Error budget left",
        description=(
            "Share of the window's error budget that is left, for each objective. Below 25 %: hold risky releases. "
            "Below 0: the promise is broken; reliability comes before features."
        ),
        unit="percentunit",
        view=View.STAT,
        decimals=1,
        queries=(
            Query(expr=_recorded(catalogue, "slo:error_budget_remaining:ratio"), legend="{{slo}}"),
        ),
        steps=(
            Step(colour="red"),
            Step(colour="orange", above=Decimal(0)),
            Step(colour="green", above=Decimal("0.25")),
        ),
        sparkline=True,
    )


def _burn(catalogue: Catalogue, window: str) -> str:
    ratio = _recorded(catalogue, f"slo:sli_error:ratio_rate{window}")
    return f"{ratio} / (1 - {_recorded(catalogue, 'slo:objective:ratio')})"


def burn_rate_now(catalogue: Catalogue) -> Panel:
    """How many times too fast each budget went during the last hour."""
    return Panel(
        title="Burn rate, last hour",
        description=(
            "How many times faster than sustainable each budget went during the last hour; 1 spends it exactly at "
            "the window's end. Above 14.4 somebody is paged: go on to the error and latency panels below."
        ),
        unit="suffix:×",
        view=View.STAT,
        decimals=2,
        queries=(Query(expr=_burn(catalogue, "1h"), legend="{{slo}}"),),
        steps=(
            Step(colour="green"),
            Step(colour="yellow", above=Decimal(1)),
            Step(colour="orange", above=Decimal(6)),
            Step(colour="red", above=_PAGE_RATE),
        ),
        sparkline=True,
    )


def burn_rate(catalogue: Catalogue) -> Panel:
    """The burn rate over time, over a short and a long window."""
    return Panel(
        title="Burn rate",
        description=(
            "Burn rate over 5 minutes and 6 hours. A high short line over a low long one is a spike; both high is a "
            "lasting fault: mitigate before you look for the cause."
        ),
        unit="suffix:×",
        queries=tuple(
            Query(expr=_burn(catalogue, window), legend=f"{{{{slo}}}} over {window}")
            for window in ("5m", "6h")
        ),
        steps=(
            Step(colour="green"),
            Step(colour="red", above=_PAGE_RATE),
        ),
    )


def _bad_share(catalogue: Catalogue, objective: Objective) -> Panel:
    return Panel(
        title=f"Bad share: {objective.title}",
        description=(
            f"Share of events that break the objective {objective.name}. Above the red line, which is its error "
            "budget, the promise does not hold: find the route in the tables below."
        ),
        unit="percentunit",
        queries=(Query(expr=burn_ratio(catalogue, objective, RATE), legend=objective.name),),
        steps=(Step(colour="green"), Step(colour="red", above=objective.budget)),
        colours=((objective.name, "red"),),
    )


def latency(catalogue: Catalogue, metric: Metric, objective: Objective | None) -> Panel:
    """Quantiles of a histogram against its objective's threshold, with exemplars."""
    promise = (
        f"The red line is the threshold of {objective.title.lower()}; p95 above it: find the route below, "
        if objective
        else "When p95 rises: find the route below, "
    )
    return Panel(
        title=f"Latency: {objective.title if objective else metric.name}",
        description=f"Quantiles of: {metric.help} {promise}then open a trace from one of the points.",
        unit=unit_of(metric),
        queries=tuple(
            Query(expr=quantile(catalogue, metric, q), legend=name, exemplars=name == "p95")
            for name, q, _ in QUANTILES
        ),
        steps=(
            (Step(colour="green"), Step(colour="red", above=objective.threshold))
            if objective
            else ()
        ),
        colours=tuple((name, colour) for name, _, colour in QUANTILES),
    )


def quality(catalogue: Catalogue) -> tuple[Panel, ...]:
    """One panel for each objective; where none judges the requests' errors or times, those panels without one."""
    own = catalogue.objectives
    panels = [
        _bad_share(catalogue, o) if o.bad is not None else latency(catalogue, o.metric, o)
        for o in own
    ]
    if not any(o.bad is not None and o.metric == REQUEST_DURATION for o in own):
        panels.insert(0, _server_errors(catalogue))
    if not any(o.threshold is not None and o.metric == REQUEST_DURATION for o in own):
        panels.append(latency(catalogue, REQUEST_DURATION, None))
    return _asked_once(panels)


def _asked_once(panels: list[Panel]) -> tuple[Panel, ...]:
    # Two latency objectives over one histogram ask the same; the strictest threshold is drawn, both are named.
    kept: dict[tuple[str, ...], Panel] = {}
    for panel in panels:
        question = tuple(query.expr for query in panel.queries)
        first = kept.get(question)
        if first is None:
            kept[question] = panel
        else:
            lines = sorted(
                {s.above for p in (first, panel) for s in p.steps if s.above is not None}
            )
            steps = (Step(colour="green"), *(Step(colour="red", above=line) for line in lines))
            kept[question] = replace(first, title=f"{first.title} · {panel.title}", steps=steps)
    return tuple(kept.values())


def _server_errors(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Server errors",
        description="Share of requests that fail through the service's own fault. When it rises: find the route below.",
        unit="percentunit",
        queries=(
            Query(expr=share(catalogue, REQUEST_DURATION, SERVER_FAULT), legend="server errors"),
        ),
        colours=(("server errors", "red"),),
    )
