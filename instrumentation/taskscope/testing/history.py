"""An hour of a healthy service's series, made from its catalogue: OpenMetrics for `promtool tsdb create-blocks-from`.

For tests of boards and pages that need a past. Same catalogue and end, same bytes. The traffic is even and without
server errors, so a panel of errors must show 0.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from taskscope.catalogue import Catalogue, Kind, Label, Metric
from taskscope.catalogue.builtin import PROCESS_START_TIME, REQUEST_DURATION, RESPONSE_SIZE
from taskscope.catalogue.promql import RECORDED, escape

__all__ = ["INSTANCES", "ROUTES", "STEP_S", "openmetrics"]

STEP_S: Final = 15
INSTANCES: Final = ("127.0.0.1:8001", "127.0.0.1:8002")
ROUTES: Final = (
    ("GET", "/api/v1/tasks", "200", "ok"),
    ("POST", "/api/v1/tasks", "201", "ok"),
    ("GET", "/api/v1/tasks/{task_id}", "200", "ok"),
    ("GET", "/api/v1/tasks/{task_id}", "404", "client_error"),
    ("DELETE", "/api/v1/tasks/{task_id}", "204", "ok"),
    ("GET", "/api/v1/tasks/statistics", "200", "ok"),
    ("POST", "/api/v1/auth/login", "200", "ok"),
    ("POST", "/api/v1/auth/login", "401", "client_error"),
    ("GET", "/api/v1/users/me", "200", "ok"),
)
_RECORDED_VALUE: Final = {
    "slo:objective:ratio": 0.99,
    "slo:error_budget_remaining:ratio": 0.97,
    "slo:events:rate5m": 40.0,
    "slo:bad_events:rate5m": 0.0,
    "service:http_requests:rate5m": 40.0,
    "service:http_request_duration_seconds:p95_rate5m": 0.08,
}
_MOVING: Final = {
    "process.resident_memory": 9.2e7,
    "process.open_fds": 31.0,
    "db.client.connection.count": 4.0,
    "taskscope.logs.oldest_line.age": 0.4,
    "taskscope.spool.size": 24576.0,
    "taskscope.collector.uncounted": 120.0,
}
_STEADY: Final = {
    "process.max_fds": 1024.0,
    "db.client.connection.max": 20.0,
    "taskscope.build.info": 1.0,
    "taskscope.shipper.connected": 1.0,
    "taskscope.spool.limit": 268435456.0,
    "taskscope.collector.connected": 1.0,
}
_RUNNING_S: Final = 5400
_QUIET: Final = ("errors", "dropped", "dead_letters", "duplicates", "retries")

_RARE: Final = ("debug", "warning", "client_error", "bad_credentials")
_NEVER: Final = ("error", "critical", "rate_limited", "overloaded", "refused")

Requests = Sequence[tuple[str, str, str, str]]
Labels = tuple[tuple[str, str], ...]


def openmetrics(
    catalogue: Catalogue, *, end_s: int, minutes: int = 65, routes: Requests = ROUTES
) -> str:
    """The text of all series that the catalogue declares and the rules record, up to `end_s`.

    end_s: seconds since 1970, of the last sample. The recorded series of an objective have plausible values only.
    routes: method, route, status and outcome of the requests that come in.
    """
    times = range(end_s - minutes * 60, end_s + 1, STEP_S)
    lines: list[str] = []
    for metric in catalogue.all_metrics:
        lines.append(f"# TYPE {metric.family} {metric.kind.value}")
        for labels in _label_sets(catalogue, metric, routes):
            lines += _metric_lines(catalogue, metric, labels, times)
    for name, rows in _made_by_prometheus(catalogue):
        value = _RECORDED_VALUE.get(name, 1.0 if name == "up" else 0.004)
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{_text(row)} {value} {at}" for row in rows for at in times]
    return "\n".join((*lines, "# EOF", ""))


def _text(labels: Labels) -> str:
    inside = ",".join(f'{name}="{escape(value)}"' for name, value in labels)
    return f"{{{inside}}}"


def _values(label: Label) -> tuple[str, ...]:
    return label.values or (("1.0.0",) if "version" in label.name else ("a", "b"))


def _label_sets(catalogue: Catalogue, metric: Metric, routes: Requests) -> Iterator[Labels]:
    job = catalogue.job(metric)
    instances = INSTANCES if metric.target == "service" else INSTANCES[:1]
    if metric == REQUEST_DURATION:
        own = [tuple(zip(metric.label_names, row, strict=True)) for row in routes]
    elif metric.label_names == RESPONSE_SIZE.label_names:  # of a method and a route
        pairs = dict.fromkeys(row[:2] for row in routes)
        own = [tuple(zip(metric.label_names, pair, strict=True)) for pair in pairs]
    else:
        rows = product(*(_values(label) for label in metric.labels))
        own = [tuple(zip(metric.label_names, row, strict=True)) for row in rows]
    for instance, labels in product(instances, own):
        yield (("job", job), ("instance", instance), *labels)


def _metric_lines(
    catalogue: Catalogue, metric: Metric, labels: Labels, times: range
) -> Iterator[str]:
    rate = 0.0 if any(word in metric.name for word in _QUIET) else _rate(metric, labels)
    if metric.kind is Kind.GAUGE:
        series = f"{metric.series}{_text(labels)}"
        yield from (f"{series} {_gauge(metric, at, times[-1])} {at}" for at in times)
        return
    phase = 6 * _chance(f"{metric.name}{labels}")
    total = 0.0
    counts: list[tuple[int, float]] = []
    for at in times:
        wave = 0.3 * math.sin(at / 900) + 0.15 * math.sin(at / 47 + phase)
        total += rate * STEP_S * (1 + wave)
        counts.append((at, total))
    if metric.kind is Kind.COUNTER:
        yield from (f"{metric.series}{_text(labels)} {count:.4f} {at}" for at, count in counts)
    else:
        yield from _histogram_lines(metric, catalogue.buckets(metric), labels, counts)


def _gauge(metric: Metric, at: int, end_s: int) -> float:
    if metric.name in _STEADY:
        return _STEADY[metric.name]
    if metric == PROCESS_START_TIME:
        return float(end_s - _RUNNING_S)
    return _MOVING.get(metric.name, 3.0) * (1 + 0.2 * math.sin(at / 600))


def _chance(key: str) -> float:
    """A number from 0 to 1 that looks random and is the same for the same key."""
    return zlib.crc32(key.encode()) / 2**32


def _rate(metric: Metric, labels: Labels) -> float:
    if metric.unit == "s" and metric.kind is Kind.COUNTER:
        return 0.2
    values = {value for _, value in labels}
    usual = 0.2 + 3.8 * _chance(f"rate {metric.name}{labels[2:]}")
    if values.intersection(_NEVER):
        return 0.0
    return usual * 0.05 if values.intersection(_RARE) else usual


def _histogram_lines(
    metric: Metric, bounds: tuple[float, ...], labels: Labels, counts: list[tuple[int, float]]
) -> Iterator[str]:
    scale = bounds[len(bounds) // 3] * (0.2 + 0.4 * _chance(f"scale {labels[2:]}"))
    shares = [(str(bound), 1 - math.exp(-bound / scale)) for bound in bounds] + [("+Inf", 1.0)]
    for bound, share in shares:
        text = _text((*labels, ("le", bound)))
        yield from (
            f"{metric.family}_bucket{text} {count * share:.4f} {at}" for at, count in counts
        )
    yield from (f"{metric.family}_count{_text(labels)} {count:.4f} {at}" for at, count in counts)
    yield from (
        f"{metric.family}_sum{_text(labels)} {count * scale:.4f} {at}" for at, count in counts
    )


def _made_by_prometheus(catalogue: Catalogue) -> Iterator[tuple[str, list[Labels]]]:
    service = (("service", catalogue.service),)
    for name, names in RECORDED.items():
        slos: list[Labels] = (
            [(("slo", o.name),) for o in catalogue.objectives] if "slo" in names else [()]
        )
        yield name, [(*service, *slo) for slo in slos]
    scraped: list[Labels] = [
        (("job", target.job), ("instance", instance))
        for target in catalogue.targets
        for instance in (INSTANCES if target.name == "service" else INSTANCES[:1])
    ]
    yield "up", scraped
    yield "scrape_duration_seconds", scraped
    group = f"rules/{catalogue.service}.rules.yml;{catalogue.service}-alerts-saturation"
    own: Labels = (("job", "prometheus"), ("instance", "127.0.0.1:9090"), ("rule_group", group))
    yield "prometheus_rule_group_last_duration_seconds", [own]
