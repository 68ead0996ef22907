"""Assertions about metrics: what a series holds, and that a block or a test moved it by so much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import CollectorRegistry

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.metrics.instruments import Instruments

__all__ = ["Metrics", "Move", "all_moved", "isolated", "moved", "value"]


def isolated(*metrics: Metric, service: str = "test", strict: bool = False) -> Instruments:
    """Instruments of a catalogue with these metrics, in a registry that nothing else sees.

    strict: wrong labels raise MetricError instead of being counted as an error of the library.
    """
    return Instruments(Catalogue(service=service, metrics=metrics), strict=strict)


def value(
    registry: CollectorRegistry, metric: Metric, /, *, part: str = "", **labels: str
) -> float:
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
        if family.name == metric.family
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """That a metric's series with these labels move by exactly `by`. part: of a histogram, its count by default."""

    metric: Metric
    by: float
    part: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def now(self, registry: CollectorRegistry) -> float:
        """What these series hold."""
        return value(registry, self.metric, part=self.part, **self.labels)

    def fault(self, change: float) -> str:
        """What is wrong with such a change; empty when it is as told."""
        if change == self.by:
            return ""
        told = ", ".join(f"{name}={text}" for name, text in self.labels.items())
        return f"{self.metric.name} {{{told}}} moved by {change:g}, expected {self.by:g}"


@contextmanager
def all_moved(registry: CollectorRegistry, *moves: Move) -> Iterator[None]:
    """Fails with AssertionError, naming each that did not, unless the block makes all these moves."""
    before = [move.now(registry) for move in moves]
    yield
    changes = [move.now(registry) - was for move, was in zip(moves, before, strict=True)]
    faults = [move.fault(change) for move, change in zip(moves, changes, strict=True)]
    if any(faults):
        raise AssertionError("; ".join(filter(None, faults)))


@contextmanager
def moved(
    registry: CollectorRegistry, metric: Metric, /, *, by: float, part: str = "", **labels: str
) -> Iterator[None]:
    """Fails with AssertionError unless the block moves the metric's series with these labels by exactly `by`."""
    with all_moved(registry, Move(metric=metric, by=by, part=part, labels=labels)):
        yield


class Metrics:
    """The metrics of one registry, and by how much they changed since this was made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._before = _Past(registry)

    def value(self, metric: Metric, /, *, part: str = "", **labels: str) -> float:
        """What `value` says of it now."""
        return value(self.registry, metric, part=part, **labels)

    def change(self, metric: Metric, /, *, part: str = "", **labels: str) -> float:
        """What it is now less what it was, of the series with these labels."""
        return self.value(metric, part=part, **labels) - value(
            self._before, metric, part=part, **labels
        )

    @contextmanager
    def moved(
        self, metric: Metric, /, *, by: float, part: str = "", **labels: str
    ) -> Iterator[None]:
        """As the function `moved`, of this registry."""
        with moved(self.registry, metric, by=by, part=part, **labels):
            yield


class _Past(CollectorRegistry):
    """A registry that holds what another one held when this was made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(auto_describe=False)
        self._families = list(registry.collect())

    def collect(self) -> Iterator[Family]:
        yield from self._families
