"""What a store holds as families of prometheus_client, for a registry and whoever reads one.

Read by `instruments`; the text for Prometheus is made by `rendering`, which does the same faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from math import inf

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as SampleExemplar
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from taskscope.catalogue import Kind, Metric
from taskscope.metrics.store import Exemplar, Reading

__all__ = ["StoreCollector", "families", "number"]


def families(readings: Iterable[Reading], metrics: Iterable[Metric]) -> Iterator[Family]:
    """The readings as prometheus_client's families: of `metrics` in this order, with or without series, then others."""
    grouped: dict[str, tuple[Metric, list[Reading]]] = {m.family: (m, []) for m in metrics}
    for reading in readings:
        metric = reading.series.metric
        grouped.setdefault(metric.family, (metric, []))[1].append(reading)
    for metric, of_metric in grouped.values():
        family = Family(metric.family, metric.help, metric.kind.value)
        for reading in of_metric:
            family.samples.extend(_samples(metric, reading))
        yield family


def number(value: float) -> str:
    """The number as Prometheus writes it: as Go does, from a million on with an exponent."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call] # it has no types


def _samples(metric: Metric, reading: Reading) -> Iterator[Sample]:
    labels = dict(zip(metric.label_names, reading.series.values, strict=True))
    exemplars = reading.exemplars
    if metric.kind is not Kind.HISTOGRAM:
        yield Sample(metric.series, labels, reading.cells[0], None, _exemplar(exemplars.get(0)))
        return
    bounds = (*reading.series.bounds, inf)
    counts = list(accumulate(reading.cells[: len(bounds)]))
    for cell, bound in enumerate(bounds):
        marked = {**labels, "le": number(bound)}
        exemplar = _exemplar(exemplars.get(cell))
        yield Sample(f"{metric.family}_bucket", marked, counts[cell], None, exemplar)
    yield Sample(f"{metric.family}_count", labels, counts[-1])
    # A sum that may fall is no counter, and prometheus_client does not write one.
    if bounds[0] >= 0:
        yield Sample(f"{metric.family}_sum", labels, reading.cells[len(bounds)])


def _exemplar(exemplar: Exemplar | None) -> SampleExemplar | None:
    if exemplar is None:
        return None
    return SampleExemplar(_trace(exemplar), exemplar.value, exemplar.at)


def _trace(exemplar: Exemplar) -> dict[str, str]:
    return {"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}


class StoreCollector(Collector):
    """The series of one store for a registry of prometheus_client."""

    def __init__(
        self, metrics: tuple[Metric, ...], readings: Callable[[], Iterable[Reading]]
    ) -> None:
        self._metrics = metrics
        self._readings = readings

    def describe(self) -> Iterable[Family]:
        """Every family that there may be, without its series."""
        return [Family(m.family, m.help, m.kind.value) for m in self._metrics]

    def collect(self) -> Iterable[Family]:
        """Every family with its series as they are now."""
        return families(self._readings(), self._metrics)
