"""A metric or an objective as PromQL, and the names of the recorded series.

Alerts and dashboards share these words, so a recorded series has one spelling. A recorded series carries
`service` and, for objectives, `slo` labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from taskscope.catalogue.catalogue import Catalogue
from taskscope.catalogue.metric import Kind, Metric
from taskscope.catalogue.objective import Objective
from taskscope.errors import ObjectiveError

__all__ = [
    "RECORDED",
    "SLI_WINDOWS",
    "any_of",
    "bad_events",
    "burn_ratio",
    "escape",
    "number",
    "selector",
    "sli_ratio",
    "total_events",
]

SLI_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""The windows for which every objective's share of bad events is recorded."""

RECORDED: Final[dict[str, tuple[str, ...]]] = {
    # series: its labels. Rates are per second; ratios go from 0 to 1.
    **{f"slo:sli_error:ratio_rate{window}": ("service", "slo") for window in SLI_WINDOWS},
    "slo:events:rate5m": ("service", "slo"),
    "slo:bad_events:rate5m": ("service", "slo"),
    "slo:objective:ratio": ("service", "slo"),
    "slo:error_budget_remaining:ratio": ("service", "slo"),
    "service:http_requests:rate5m": ("service",),
    "service:http_request_errors:ratio_rate5m": ("service",),
    "service:http_request_duration_seconds:p95_rate5m": ("service",),
    "service:db_client_connection_utilization:ratio": ("service",),
}
"""Every recorded series and its labels; the rules record each of them, boards and the page may ask for them."""


def escape(value: str) -> str:
    """A label value as it must stand inside a double-quoted PromQL string."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


def any_of(values: Iterable[str]) -> str:
    """A regular expression that matches exactly one of `values`, as it must stand inside double quotes."""
    return escape("|".join(_SPECIAL.sub(r"\\\g<0>", value) for value in values))


def number(value: Decimal | float | int) -> str:
    """A number as Prometheus writes a bucket bound or a threshold: `0.3`, `1.0` as `1`, never `1E+1`."""
    text = format(Decimal(str(value)).normalize(), "f")
    return "0" if text == "-0" else text


def selector(
    catalogue: Catalogue, metric: Metric, *, part: str = "", matchers: tuple[str, ...] = ()
) -> str:
    """An instant selector of the metric's series, held to its own job.

    part: `bucket`, `count` or `sum` for a histogram. matchers: ready PromQL matchers such as `outcome="ok"`.
    """
    name = f"{metric.family}_{part}" if part else metric.series
    inside = ", ".join((f'job="{escape(catalogue.job(metric))}"', *matchers))
    return f"{name}{{{inside}}}"


def _events_part(metric: Metric) -> str:
    return "count" if metric.kind is Kind.HISTOGRAM else ""


def total_events(catalogue: Catalogue, objective: Objective, window: str) -> str:
    """Events per second over `window`, of all processes together."""
    source = selector(catalogue, objective.metric, part=_events_part(objective.metric))
    return f"sum(rate({source}[{window}]))"


def bad_events(catalogue: Catalogue, objective: Objective, window: str) -> str:
    """Bad events per second over `window`; 0, not nothing, where there were none."""
    total = total_events(catalogue, objective, window)
    if objective.bad is not None:
        label = objective.metric.label(objective.bad.label).prometheus
        part = _events_part(objective.metric)
        source = selector(
            catalogue,
            objective.metric,
            part=part,
            matchers=(f'{label}=~"{any_of(objective.bad.values)}"',),
        )
        return f"(sum(rate({source}[{window}])) or 0 * {total})"
    if objective.threshold is None:
        raise ObjectiveError(f"{objective.name}: neither bad nor threshold is given; give one")
    le = _bound_matcher(objective.threshold)
    source = selector(catalogue, objective.metric, part="bucket", matchers=(le,))
    return f"clamp_min({total} - sum(rate({source}[{window}])), 0)"


def _bound_matcher(bound: Decimal) -> str:
    text = number(bound)
    # Python's client writes a whole bound as 1.0, which Prometheus 2 stores so and Prometheus 3 as 1.0 too,
    # but other clients write 1: the pattern takes both.
    return f'le="{text}"' if "." in text else f'le=~"{text}(\\\\.0)?"'


def burn_ratio(catalogue: Catalogue, objective: Objective, window: str) -> str:
    """The share of bad events over `window`, from raw series; no answer where there were no events."""
    return f"{bad_events(catalogue, objective, window)} / ({total_events(catalogue, objective, window)} > 0)"


def sli_ratio(catalogue: Catalogue, objective: Objective, window: str) -> str:
    """The recorded share of bad events over one of SLI_WINDOWS. Raises ObjectiveError for another window."""
    if window not in SLI_WINDOWS:
        raise ObjectiveError(
            f"{objective.name}: no series is recorded over {window}; take one of {', '.join(SLI_WINDOWS)}"
        )
    return f'slo:sli_error:ratio_rate{window}{{service="{escape(catalogue.service)}", slo="{objective.name}"}}'
