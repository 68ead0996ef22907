"""Panels of the service's own metrics: counters as rates, gauges by label, histograms as quantiles."""

from __future__ import annotations

from decimal import Decimal

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.groups import GROUPS
from taskscope_dashboards.panel import Panel, Query, rate_unit, unit_of
from taskscope_dashboards.queries import per_second, quantile, value

__all__ = ["business", "business_panel"]


def business(catalogue: Catalogue) -> tuple[Panel, ...]:
    """One panel per metric of the service's own, except those an objective's panel shows already."""
    judged = {o.metric for o in catalogue.objectives if o.threshold is not None}
    own = (m for m in catalogue.metrics if m not in judged and m not in GROUPS)
    return tuple(business_panel(catalogue, metric) for metric in own)


def _legend(metric: Metric) -> str:
    return " ".join(f"{{{{{name}}}}}" for name in metric.label_names) or metric.help.rstrip(".")


def _title(catalogue: Catalogue, metric: Metric) -> str:
    # The service's name stands over the board already.
    own = metric.name.removeprefix(f"{catalogue.service.replace('-', '_')}.")
    return own.replace("_", " ").replace(".", " ").capitalize()


def business_panel(catalogue: Catalogue, metric: Metric) -> Panel:
    """The metric over time, by its labels."""
    title, labels = _title(catalogue, metric), metric.label_names
    owner = f"Ask {metric.owner} when it moves without a reason you know."
    if metric.kind is Kind.COUNTER:
        return Panel(
            title=f"{title}, per second",
            description=f"{metric.help} {owner}",
            unit=rate_unit(metric),
            queries=(Query(expr=per_second(catalogue, metric, by=labels), legend=_legend(metric)),),
            stacked=bool(labels),
        )
    if metric.kind is Kind.GAUGE:
        # The highest, not the sum: many gauges say the same in every process, such as rows of one table.
        return Panel(
            title=title,
            description=f"{metric.help} The highest of all instances. {owner}",
            unit=unit_of(metric),
            queries=(
                Query(
                    expr=value(catalogue, metric, operator="max", by=labels), legend=_legend(metric)
                ),
            ),
        )
    return Panel(
        title=f"{title}, quantiles",
        description=f"{metric.help} {owner}",
        unit=unit_of(metric),
        queries=tuple(
            Query(expr=quantile(catalogue, metric, q), legend=name)
            for name, q in (("p50", Decimal("0.5")), ("p95", Decimal("0.95")))
        ),
    )
