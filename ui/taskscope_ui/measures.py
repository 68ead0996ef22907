"""What the capacity page asks about a service: four measures and their limits, from its catalogue. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import BUILD, REQUEST_DURATION
from taskscope.catalogue.promql import escape
from taskscope_ui.wording import duration, percent, rate

__all__ = [
    "ERRORS",
    "LATENCY",
    "MEASURES",
    "POOL",
    "TRAFFIC",
    "Measure",
    "budgets",
    "data_time",
    "instances",
    "limits",
    "query",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One thing that can run out.

    title: the heading on the page. noun: its name inside a sentence. series: the recorded series.
    shown: how its values are written. limit_is: what its limit means, in the reader's words.
    """

    key: str
    title: str
    noun: str
    series: str
    shown: Callable[[float], str]
    limit_is: str


TRAFFIC: Final = Measure(
    key="traffic",
    title="Requests per second",
    noun="request rate",
    series="service:http_requests:rate5m",
    shown=rate,
    limit_is="what the running instances can carry",
)
LATENCY: Final = Measure(
    key="latency",
    title="Response time, 95 % are faster",
    noun="response time",
    series="service:http_request_duration_seconds:p95_rate5m",
    shown=duration,
    limit_is="the response time that was promised",
)
ERRORS: Final = Measure(
    key="errors",
    title="Failed requests",
    noun="failed requests",
    series="service:http_request_errors:ratio_rate5m",
    shown=percent,
    limit_is="the share that may fail under the promise",
)
POOL: Final = Measure(
    key="pool",
    title="Database pool in use",
    noun="database pool",
    series="service:db_client_connection_utilization:ratio",
    shown=percent,
    limit_is="every connection is taken",
)

MEASURES: Final = (TRAFFIC, LATENCY, ERRORS, POOL)


def query(catalogue: Catalogue, measure: Measure) -> str:
    """The PromQL of one measure's value."""
    return f'{measure.series}{{service="{escape(catalogue.service)}"}}'


def data_time(catalogue: Catalogue) -> str:
    """PromQL for the time of the newest measurement, in seconds since 1970."""
    return f"timestamp({query(catalogue, TRAFFIC)})"


def instances(catalogue: Catalogue) -> str:
    """PromQL for how many instances of the service answer Prometheus."""
    return f'sum(up{{job="{escape(catalogue.job(BUILD))}"}})'


def budgets(catalogue: Catalogue) -> str:
    """PromQL for the share of each objective's error budget that is left, by `slo`."""
    return f'slo:error_budget_remaining:ratio{{service="{escape(catalogue.service)}"}}'


def limits(catalogue: Catalogue, *, capacity_rps: float, up: float) -> dict[str, float]:
    """The limit of each measure by its key; a measure for which nothing was promised has none.

    capacity_rps: requests per second that one instance carries. up: instances that run; none carries nothing.
    """
    judged = [o for o in catalogue.objectives if o.metric == REQUEST_DURATION]
    found = {TRAFFIC.key: capacity_rps * up, POOL.key: 1.0}
    for objective in judged:
        if objective.threshold is not None:
            found.setdefault(LATENCY.key, float(objective.threshold))
        else:
            found.setdefault(ERRORS.key, float(objective.budget))
    return found
