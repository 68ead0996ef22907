"""A catalogue's metrics, ready to be written to, over one store.

Read by `wiring`, which hands them to the middleware and to the service's code. A label value beyond its
declared bound is folded into `__overflow__` and counted by metric and label; nothing here fails a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import nan
from time import monotonic
from typing import Final

from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.builtin import (
    LIBRARY_ERRORS,
    OVERFLOWED,
    PROCESS_CPU,
    PROCESS_MAX_FDS,
    PROCESS_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_START_TIME,
    SERIES,
)
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import MetricError
from taskscope.metrics.cardinality import MAX_LABEL_SETS, MAX_SERIES, Capacity
from taskscope.metrics.children import GaugeChild
from taskscope.metrics.families import StoreCollector
from taskscope.metrics.handles import Counter, Gauge, Histogram
from taskscope.metrics.store import MemoryStore, Reading, Store
from taskscope.once import OncePerMinute

__all__ = ["MAX_LABEL_SETS", "MAX_SERIES", "Counter", "Gauge", "Histogram", "Instruments"]

_FOLDED: Final = (
    "%s: label %s went beyond its declared bound; more values are counted as %s, "
    "list fewer or raise the cap where the metric is declared%s"
)
_KEPT: Final = "an error inside the library was kept from the request%s"
_PROCESS: Final = (
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START_TIME,
)
_log = logging.getLogger(__name__)

_INSTRUMENTS: Final[dict[Kind, type[Counter] | type[Gauge] | type[Histogram]]] = {
    Kind.COUNTER: Counter,
    Kind.GAUGE: Gauge,
    Kind.HISTOGRAM: Histogram,
}


class Instruments:
    """Everything one process of a service can measure: `counter`, `gauge` and `histogram` by metric.

    target: whose metrics these are; `service`, `shipper` or a target that the catalogue declares.
    store: where the values live; by default in the memory of this process.
    strict: wrong label names raise MetricError, for tests; else they are counted as a library error.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        target: str = "service",
        store: Store | None = None,
        strict: bool = False,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.catalogue = catalogue
        self.target = target
        self.store: Store = MemoryStore() if store is None else store
        self.strict = strict
        self.capacity = Capacity()
        self.metrics = tuple(m for m in catalogue.all_metrics if m.target == target)
        self.registry = CollectorRegistry(auto_describe=False)
        self._once = OncePerMinute(monotonic=now)
        self._followed: dict[int, Callable[[], None]] = {}
        self._settles: list[Callable[[], None]] = []
        self._errors: Counter | None = None
        self._made = {m.name: self._make(m) for m in self.metrics if m not in _PROCESS}
        # Made when first read: where there is no /proc, they are absent and not 0.
        self._process = {m.series: m for m in self.metrics if m in _PROCESS}
        self._source = ProcessCollector(registry=None)
        self._errors = self._counter_if_declared(LIBRARY_ERRORS)
        self._overflowed = self._counter_if_declared(OVERFLOWED)
        self._series = self._made.get(SERIES.name)
        if self._errors is not None:
            for component in LIBRARY_ERRORS.labels[0].values:
                self._errors.at((component, "none"))
        self.registry.register(StoreCollector(self.metrics, self.readings))

    def counter(self, metric: Metric) -> Counter:
        """The counter of `metric`. Raises MetricError if this process does not declare it as one."""
        found = self._find(metric)
        if isinstance(found, Counter):
            return found
        raise self._wrong_kind(metric, "counter")

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of `metric`. Raises MetricError if this process does not declare it as one."""
        found = self._find(metric)
        if isinstance(found, Gauge):
            return found
        raise self._wrong_kind(metric, "gauge")

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of `metric`. Raises MetricError if this process does not declare it as one."""
        found = self._find(metric)
        if isinstance(found, Histogram):
            return found
        raise self._wrong_kind(metric, "histogram")

    def readings(self) -> Iterator[Reading]:
        """Every series of this process as it is now, in the order in which they came."""
        self.refresh()
        return self.store.readings()

    def refresh(self) -> None:
        """What is asked for rather than told is as it is now: followed gauges, the process, the count of series."""
        for settle in tuple(self._settles):
            try:
                settle()
            except Exception as error:  # noqa: BLE001 - what cannot be settled never fails a scrape
                self.failed("metrics", error)
        for ask in tuple(self._followed.values()):
            ask()
        try:
            self._refresh_process()
        except Exception as error:  # noqa: BLE001 - a probe never fails a scrape
            self.failed("probes", error)
        if isinstance(self._series, Gauge):
            self._series.at(()).set(self.capacity.lines)

    def failed(self, component: str, error: BaseException | None = None) -> None:
        """An error inside the library is counted, and logged once a minute for each kind, with how often it came.

        component: one that `taskscope.library.errors` lists. Never raises.
        """
        # Beyond this there is nobody left to tell: a handler of the user's logging may raise as well.
        with suppress(Exception):
            if self._errors is not None:
                kind = "none" if error is None else type(error).__name__
                child = self._errors.at((component, kind))
                if (
                    child.store is not self.store
                ):  # no room for a new kind; this one is there from the start
                    child = self._errors.at((component, "none"))
                child.inc()
            # An error of the log path is not logged: that would feed it.
            if error is None or component == "logs":
                return
            if isinstance(error, MetricError):  # a sentence that says where and what to do
                if times := self._once.turn((component, str(error))):
                    _log.warning("%s%s", error, _often(times))
            elif times := self._once.turn((component, type(error).__qualname__)):
                _log.warning(_KEPT, _often(times), exc_info=error)

    def folded(
        self, metric: Metric, given: tuple[object, ...], kept: tuple[str, ...], times: int = 1
    ) -> None:
        """Values that are kept as `__overflow__` are counted, and told once a minute. Never raises."""
        overflowed = self._overflowed
        if metric is OVERFLOWED or overflowed is None:
            return
        try:
            for label, before, after in zip(metric.label_names, given, kept, strict=True):
                if after == OVERFLOW and (type(before) is not str or before != OVERFLOW):
                    overflowed.at((metric.name, label)).inc(times)
                    if often := self._once.turn((metric.name, label)):
                        _log.warning(_FOLDED, metric.name, label, OVERFLOW, _often(often))
        except Exception:  # noqa: BLE001, S110 - a handler of the user's logging may raise; the fold is counted
            pass

    def before_reading(self, settle: Callable[[], None]) -> None:
        """`settle` is called at each refresh, before anything else."""
        self._settles.append(settle)

    def follow(self, child: GaugeChild, read: Callable[[], float]) -> None:
        """At each refresh the child is set to what `read` gives, or to NaN where it raises."""

        def ask() -> None:
            try:
                value = float(read())
            except Exception as error:  # noqa: BLE001 - a probe never fails a scrape
                self.failed("probes", error)
                value = nan
            child.set(value)

        self._followed[id(child)] = ask

    def _refresh_process(self) -> None:
        for family in self._source.collect() if self._process else ():
            for sample in family.samples:
                metric = self._process.get(sample.name)
                if metric is None:
                    continue
                made = self._made.get(metric.name) or self._made.setdefault(
                    metric.name, self._make(metric)
                )
                child = made.at(())
                with child.store.lock:
                    child.store.cells[child.base] = sample.value

    def _find(self, metric: Metric) -> Counter | Gauge | Histogram:
        found = self._made.get(metric.name)
        if found is None or (found.metric is not metric and found.metric != metric):
            raise MetricError(
                f"{metric.name}: the catalogue of {self.catalogue.service} does not declare it "
                f"for target {self.target}; add this Metric to Catalogue(metrics=…)"
            )
        return found

    def _wrong_kind(self, metric: Metric, asked: str) -> MetricError:
        return MetricError(
            f"{metric.name}: it is a {metric.kind.value}, not a {asked}; "
            f"use telemetry.{metric.kind.value}(…)"
        )

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        bounds = tuple(map(float, self.catalogue.buckets(metric)))
        return _INSTRUMENTS[metric.kind](metric, bounds, self)

    def _counter_if_declared(self, metric: Metric) -> Counter | None:
        found = self._made.get(metric.name)
        return found if isinstance(found, Counter) else None


def _often(times: int) -> str:
    return "" if times == 1 else f" ({times} times since it was last told)"
