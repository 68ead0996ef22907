"""The recorded series: shares of bad events over seven windows, the budget that is left, and the service's rates.

Read by alerts, boards and the page under the names of `taskscope.catalogue.promql.RECORDED`.

Long windows are sums of the recorded 5-minute event rates: weighted by events, not an average of ratios, and one
sample an evaluation instead of every bucket of every route over days. No traffic gives no answer, never NaN: a share
of nothing is unknown. Only the remaining budget answers always: a budget nobody has spent is whole.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue, Match, Objective
from taskscope.catalogue.builtin import DB_CONNECTIONS, DB_CONNECTIONS_MAX, REQUEST_DURATION
from taskscope.catalogue.promql import (
    SLI_WINDOWS,
    any_of,
    bad_events,
    escape,
    number,
    selector,
    sli_ratio,
    total_events,
)
from taskscope_alerts.expression import binary, enclosed
from taskscope_alerts.rule import Recording

__all__ = [
    "FAST_INTERVAL_S",
    "FAST_WINDOWS",
    "SLOW_WINDOWS",
    "event_count",
    "recorded",
    "service_recordings",
    "sli_recordings",
    "slow_recordings",
]

FAST_INTERVAL_S: Final = 15
"""Seconds between evaluations of the event rates; a sum of their samples times this is a count of events."""

FAST_WINDOWS: Final = ("5m", "30m", "1h")
SLOW_WINDOWS: Final = tuple(window for window in SLI_WINDOWS if window not in FAST_WINDOWS)

_STEP: Final = "5m"
_STEP_S: Final = 300
_SUBSAMPLED: Final = ("1d", "3d")
"""Windows read at one 5-minute rate every 5 minutes: each event counts once, and 3 d are 864 samples."""

_SERVER_FAULT: Final = Match(label="outcome", values=("server_error", "timeout"))


def recorded(catalogue: Catalogue, objective: Objective, name: str) -> str:
    """A selector of one of the objective's recorded series."""
    return f'{name}{{service="{escape(catalogue.service)}", slo="{objective.name}"}}'


def event_count(catalogue: Catalogue, objective: Objective, name: str, window: str) -> str:
    """How many events the recorded rate `name` counted in `window`.

    name: `slo:events:rate5m` or `slo:bad_events:rate5m`. A missing past counts as no events.
    """
    series = recorded(catalogue, objective, name)
    if window == _STEP:
        return f"{_STEP_S} * {series}"
    if window in _SUBSAMPLED:
        return f"{_STEP_S} * sum_over_time({series}[{window}:{_STEP}])"
    return f"{FAST_INTERVAL_S} * sum_over_time({series}[{window}])"


def sli_recordings(catalogue: Catalogue, objective: Objective) -> tuple[Recording, ...]:
    """The objective's target, its event rates and its share of bad events over the short windows."""
    return (
        _slo(catalogue, objective, "slo:objective:ratio", f"vector({number(objective.target)})"),
        _slo(catalogue, objective, "slo:events:rate5m", total_events(catalogue, objective, _STEP)),
        _slo(
            catalogue,
            objective,
            "slo:bad_events:rate5m",
            _one_operand_a_line(bad_events(catalogue, objective, _STEP)),
        ),
        *(_ratio(catalogue, objective, window) for window in FAST_WINDOWS),
    )


def slow_recordings(catalogue: Catalogue, objective: Objective) -> tuple[Recording, ...]:
    """The objective's share of bad events over the long windows, and what is left of its budget."""
    return (
        *(_ratio(catalogue, objective, window) for window in SLOW_WINDOWS),
        _slo(
            catalogue,
            objective,
            "slo:error_budget_remaining:ratio",
            _budget_remaining(catalogue, objective),
        ),
    )


def service_recordings(catalogue: Catalogue) -> tuple[Recording, ...]:
    """The service's request rate, share of server errors, 95th percentile and pool utilization."""
    requests = f"sum(rate({selector(catalogue, REQUEST_DURATION, part='count')}[{_STEP}]))"
    matcher = f'{_SERVER_FAULT.label}=~"{any_of(_SERVER_FAULT.values)}"'
    failed = selector(catalogue, REQUEST_DURATION, part="count", matchers=(matcher,))
    errors = binary(f"sum(rate({failed}[{_STEP}]))", "or", f"0 * {requests}")
    buckets = selector(catalogue, REQUEST_DURATION, part="bucket")
    p95 = f"histogram_quantile(0.95, sum by (le) (rate({buckets}[{_STEP}])))"
    used = selector(
        catalogue, DB_CONNECTIONS, matchers=(f'{DB_CONNECTIONS.label_names[0]}="used"',)
    )
    most = f"{selector(catalogue, DB_CONNECTIONS_MAX)} > 0"
    share = binary(used, f"/ ignoring ({DB_CONNECTIONS.label_names[0]})", enclosed(most))
    return (
        _service(catalogue, "service:http_requests:rate5m", requests),
        _service(
            catalogue,
            "service:http_request_errors:ratio_rate5m",
            binary(enclosed(errors), "/", enclosed(f"{requests} > 0")),
        ),
        # `>= 0` drops the NaN that a quantile of no requests is
        _service(catalogue, "service:http_request_duration_seconds:p95_rate5m", f"{p95} >= 0"),
        _service(
            catalogue, "service:db_client_connection_utilization:ratio", f"max{enclosed(share)}"
        ),
    )


def _slo(catalogue: Catalogue, objective: Objective, name: str, expr: str) -> Recording:
    labels = (("service", catalogue.service), ("slo", objective.name))
    return Recording(name=name, expr=expr, labels=labels)


def _service(catalogue: Catalogue, name: str, expr: str) -> Recording:
    return Recording(name=name, expr=expr, labels=(("service", catalogue.service),))


def _ratio(catalogue: Catalogue, objective: Objective, window: str) -> Recording:
    expr = _share(catalogue, objective, window)
    if window in _SUBSAMPLED:
        # before the first full step after a start there is no step to read; the 6 h are all there is
        expr = binary(expr, "or", sli_ratio(catalogue, objective, "6h"))
    return _slo(catalogue, objective, f"slo:sli_error:ratio_rate{window}", expr)


def _share(catalogue: Catalogue, objective: Objective, window: str) -> str:
    bad = recorded(catalogue, objective, "slo:bad_events:rate5m")
    events = recorded(catalogue, objective, "slo:events:rate5m")
    if window != _STEP:
        span = (
            f"[{window}]"
            if window in SLI_WINDOWS and window not in _SUBSAMPLED
            else f"[{window}:{_STEP}]"
        )
        bad, events = f"sum_over_time({bad}{span})", f"sum_over_time({events}{span})"
    return binary(bad, "/", enclosed(f"{events} > 0"))


def _budget_remaining(catalogue: Catalogue, objective: Objective) -> str:
    budget = number(objective.budget)
    whole = _share(catalogue, objective, objective.window.prometheus)
    return "\nor\n".join(
        (
            f"1 - {enclosed(whole)} / {budget}",
            f"1 - {sli_ratio(catalogue, objective, '6h')} / {budget}",
            f"1 + 0 * {recorded(catalogue, objective, 'slo:objective:ratio')}",
        )
    )


def _one_operand_a_line(expr: str) -> str:
    # The last one: a label's value may hold the same words.
    bad, either, none = expr.rpartition(" or 0 * ")
    return f"{bad.removeprefix('(')}\nor\n0 * {none.removesuffix(')')}" if either else expr
