"""The few PromQL shapes that panels are made of, over a catalogue's metrics.

Every one is held to the service's own job and answers 0, not nothing, where nothing happened.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Kind, Match, Metric
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.promql import any_of, number, selector

__all__ = [
    "NOW",
    "RATE",
    "SERVER_FAULT",
    "all_jobs",
    "or_zero",
    "per_second",
    "quantile",
    "share",
    "value",
]

RATE: Final = "$__rate_interval"
"""The range of every drawn rate: at least four scrapes, however far the reader zooms."""
NOW: Final = "5m"
"""The range of a table's rates: what is so now, steady enough to be read."""

SERVER_FAULT: Final = Match(label="outcome", values=("server_error", "timeout"))
"""Requests that fail through the service's own fault."""


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _count_part(metric: Metric) -> str:
    return "count" if metric.kind is Kind.HISTOGRAM else ""


def per_second(
    catalogue: Catalogue,
    metric: Metric,
    *,
    by: tuple[str, ...] = (),
    matchers: tuple[str, ...] = (),
    window: str = RATE,
    part: str | None = None,
) -> str:
    """Events per second of a counter, or of a histogram's observations, summed over processes.

    by: Prometheus label names that stay. part: another part of the histogram, such as `sum`.
    """
    chosen = _count_part(metric) if part is None else part
    source = selector(catalogue, metric, part=chosen, matchers=matchers)
    return f"sum{_by(by)} (rate({source}[{window}]))"


def or_zero(expr: str, like: str) -> str:
    """`expr`, and 0 for each series that `like` has and `expr` lacks."""
    return f"({expr} or 0 * {like})"


def share(
    catalogue: Catalogue,
    metric: Metric,
    bad: Match,
    *,
    by: tuple[str, ...] = (),
    matchers: tuple[str, ...] = (),
    window: str = RATE,
) -> str:
    """The share of events that match `bad`, 0 to 1; no answer where there were no events."""
    label = metric.label(bad.label).prometheus
    wrong = (*matchers, f'{label}=~"{any_of(bad.values)}"')
    total = per_second(catalogue, metric, by=by, matchers=matchers, window=window)
    failed = per_second(catalogue, metric, by=by, matchers=wrong, window=window)
    return f"{or_zero(failed, total)} / ({total} > 0)"


def quantile(
    catalogue: Catalogue,
    metric: Metric,
    q: Decimal,
    *,
    by: tuple[str, ...] = (),
    matchers: tuple[str, ...] = (),
    window: str = RATE,
) -> str:
    """The q-quantile of a histogram over all processes, in its base unit; q from 0 to 1."""
    buckets = per_second(
        catalogue, metric, by=("le", *by), matchers=matchers, window=window, part="bucket"
    )
    return f"histogram_quantile({number(q)}, {buckets})"


def value(
    catalogue: Catalogue,
    metric: Metric,
    *,
    operator: str = "sum",
    by: tuple[str, ...] = (),
    matchers: tuple[str, ...] = (),
) -> str:
    """A gauge over all processes: their sum, or another aggregation."""
    return f"{operator}{_by(by)} ({selector(catalogue, metric, matchers=matchers)})"


def all_jobs(catalogue: Catalogue) -> str:
    """A matcher of every job of the service, the service first."""
    own = catalogue.job(REQUEST_DURATION)
    others = sorted(target.job for target in catalogue.targets if target.job != own)
    return f'job=~"{any_of((own, *others))}"'
