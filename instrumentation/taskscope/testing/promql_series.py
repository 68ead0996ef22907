"""The series that a query about a catalogue's service may name: declared, recorded, and made by Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.metric import OVERFLOW
from taskscope.catalogue.promql import RECORDED, number

__all__ = ["FOREIGN", "Series", "known_series"]

_TARGET_LABELS: Final = ("job", "instance")
_ALERT_LABELS: Final = ("alertname", "service", "slo", "severity", "subsystem", "owner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One stored series name as a query may use it.

    kind: COUNTER or GAUGE; the three series of a histogram are counters.
    labels: every label it may carry. values: the listed values of those labels that list them.
    scope: the label by which a query must hold it to one service.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scope: str = "job"


def _gauge(name: str, *labels: str) -> Series:
    return Series(name=name, kind=Kind.GAUGE, labels=(*_TARGET_LABELS, *labels))


def _counter(name: str, *labels: str) -> Series:
    return Series(name=name, kind=Kind.COUNTER, labels=(*_TARGET_LABELS, *labels))


FOREIGN: Final[tuple[Series, ...]] = (
    _gauge("up"),
    _gauge("scrape_duration_seconds"),
    _gauge("scrape_samples_scraped"),
    _gauge("scrape_samples_post_metric_relabeling"),
    _gauge("scrape_series_added"),
    Series(
        name="ALERTS",
        kind=Kind.GAUGE,
        labels=(*_TARGET_LABELS, "alertstate", *_ALERT_LABELS),
        values={"alertstate": ("pending", "firing"), "severity": ("page", "ticket")},
        scope="service",
    ),
    Series(
        name="ALERTS_FOR_STATE",
        kind=Kind.GAUGE,
        labels=(*_TARGET_LABELS, *_ALERT_LABELS),
        values={"severity": ("page", "ticket")},
        scope="service",
    ),
    _gauge("prometheus_build_info", "version", "revision", "branch", "goversion"),
    _gauge("prometheus_config_last_reload_successful"),
    _gauge("prometheus_notifications_alertmanagers_discovered"),
    _gauge("prometheus_notifications_queue_length"),
    _counter("prometheus_notifications_dropped_total"),
    _counter("prometheus_notifications_errors_total", "alertmanager"),
    _counter("prometheus_notifications_sent_total", "alertmanager"),
    _counter("prometheus_rule_evaluation_failures_total", "rule_group"),
    _counter("prometheus_rule_group_iterations_missed_total", "rule_group"),
    _gauge("prometheus_rule_group_last_duration_seconds", "rule_group"),
    _gauge("prometheus_tsdb_head_series"),
    _counter("prometheus_tsdb_head_samples_appended_total", "type"),
    _counter("prometheus_tsdb_wal_corruptions_total"),
    _gauge("alertmanager_alerts", "state"),
    _gauge("alertmanager_config_last_reload_successful"),
    _counter("alertmanager_notifications_total", "integration"),
    _counter("alertmanager_notifications_failed_total", "integration"),
)
"""Series that Prometheus and Alertmanager make themselves; in 2.42 and in 3.x."""


def _declared(catalogue: Catalogue, metric: Metric, name: str) -> Series:
    listed = {
        label.prometheus: (*label.values, OVERFLOW) for label in metric.labels if label.values
    }
    listed["job"] = (catalogue.job(metric),)
    labels = (*_TARGET_LABELS, *metric.label_names)
    if metric.kind is Kind.GAUGE:
        return Series(name=name, kind=Kind.GAUGE, labels=labels, values=listed)
    if name.endswith("_bucket") and metric.kind is Kind.HISTOGRAM:
        labels = (*labels, "le")
        bounds = catalogue.buckets(metric)
        # Clients differ in how they write a whole bound: 1.0 and 1 are the same bucket.
        written = {text for bound in bounds for text in (repr(float(bound)), number(bound))}
        listed["le"] = (*sorted(written), "+Inf")
    return Series(name=name, kind=Kind.COUNTER, labels=labels, values=listed)


def _recorded(catalogue: Catalogue, name: str, labels: tuple[str, ...]) -> Series:
    values: dict[str, tuple[str, ...]] = {"service": (catalogue.service,)}
    if "slo" in labels:
        values["slo"] = tuple(objective.name for objective in catalogue.objectives)
    return Series(name=name, kind=Kind.GAUGE, labels=labels, values=values, scope="service")


def known_series(catalogue: Catalogue) -> dict[str, Series]:
    """Every series a query about the catalogue's service may name, by name."""
    own = [
        _declared(catalogue, metric, name)
        for metric in catalogue.all_metrics
        for name in metric.exposed
    ]
    recorded = [_recorded(catalogue, name, labels) for name, labels in RECORDED.items()]
    return {series.name: series for series in (*FOREIGN, *own, *recorded)}
