"""Assertions about metrics: what a series holds, and that a block moved it by so much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.registry import CollectorRegistry

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.instruments import Instruments

__all__ = ["isolated", "moved", "value"]


def isolated(*metrics: Metric, service: str = "test") -> Instruments:
    """Instruments of a catalogue with these metrics, in a registry that nothing else sees."""
    return Instruments(Catalogue(service=service, metrics=metrics))


def value(registry: CollectorRegistry, metric: Metric, *, part: str = "", **labels: str) -> float:
    """The sum of the metric's series that have these labels; 0 where there is none.

    part: `bucket`, `count` or `sum` of a histogram; its count by default.
    labels: some or all, by their Prometheus names. Raises MetricError for a label that is not declared.
    """
    for label in labels:
        if not (metric.kind is Kind.HISTOGRAM and label == "le"):
            metric.label(label)
    name = metric.series
    if metric.kind is Kind.HISTOGRAM:
        name = f"{metric.family}_{part or 'count'}"
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextmanager
def moved(
    registry: CollectorRegistry, metric: Metric, *, by: float, part: str = "", **labels: str
) -> Iterator[None]:
    """Fails with AssertionError unless the block moves the metric's series with these labels by exactly `by`."""
    before = value(registry, metric, part=part, **labels)
    yield
    change = value(registry, metric, part=part, **labels) - before
    if change != by:
        told = ", ".join(f"{name}={text}" for name, text in labels.items())
        raise AssertionError(f"{metric.name} {{{told}}} moved by {change:g}, expected {by:g}")
