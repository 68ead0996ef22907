"""A catalogue's metrics as collectors of prometheus_client, in one registry of their own.

Read by `wiring`, which hands them to the middleware and to the service's code. A label value beyond its
declared bound is folded into `__overflow__` and counted; a label name that is not declared is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import product
from math import isfinite, nan
from threading import Lock
from typing import Final, Generic, TypeVar

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import MetricError

__all__ = ["MAX_LABEL_SETS", "Counter", "Gauge", "Histogram", "Instruments"]

MAX_LABEL_SETS: Final = 1_000
"""The most label sets one metric has in a process; beyond, its capped labels fold into `__overflow__`."""

_PROCESS: Final = "process."
_log = logging.getLogger(__name__)

CollectorT = TypeVar("CollectorT", bound=MetricWrapperBase)
OnError = Callable[[str, BaseException | None], None]


class _Series(Generic[CollectorT]):
    """One metric's label sets, each held to the declared bound and kept for the next use."""

    def __init__(self, metric: Metric, collector: CollectorT, on_error: OnError) -> None:
        self.metric = metric
        self._collector = collector
        self._on_error = on_error
        self._names = metric.label_names
        self._seen: list[set[str]] = [set(label.values) for label in metric.labels]
        self._children: dict[tuple[str, ...], CollectorT] = {}
        self._folded: set[str] = set()
        self._lock = Lock()
        self._start_at_zero()

    def at(self, values: tuple[str, ...]) -> CollectorT:
        """The collector of these label values, in their declared order, after folding."""
        child = self._children.get(values)
        return child if child is not None else self._admit(values)

    def _of(self, labels: dict[str, str]) -> CollectorT:
        try:
            values = tuple([labels[name] for name in self._names])
        except KeyError:
            values = ()
        if len(values) != len(labels) or len(values) != len(self._names):
            raise MetricError(
                f"{self.metric.name}: labels {', '.join(sorted(labels)) or 'none'} were given; "
                f"give exactly {', '.join(self._names) or 'none'}"
            )
        return self.at(values)

    def _start_at_zero(self) -> None:
        listed = [label.values for label in self.metric.labels]
        sets = 1
        for values in listed:
            sets *= len(values)
        if 0 < sets <= MAX_LABEL_SETS:
            for values in product(*listed):
                self._admit(values)

    def _admit(self, values: tuple[str, ...]) -> CollectorT:
        texts = tuple([value if type(value) is str else str(value) for value in values])
        with self._lock:
            kept = self._bounded(texts)
            child = self._children.get(kept)
            if child is None:
                child = self._collector.labels(*kept) if kept else self._collector
                self._children[kept] = child
        # Outside of the lock: reporting may log, and a log line is itself counted.
        if kept != texts:
            self._report_fold(texts, kept)
        return child

    def _bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        full = len(self._children) >= MAX_LABEL_SETS and values not in self._children
        kept = []
        for label, seen, value in zip(self.metric.labels, self._seen, values, strict=True):
            fold = full and not label.values
            if not fold and value in seen:
                kept.append(value)
            elif fold or label.values or len(seen) >= label.cap:
                kept.append(OVERFLOW)
            else:
                seen.add(value)
                kept.append(value)
        return tuple(kept)

    def _report_fold(self, given: tuple[str, ...], kept: tuple[str, ...]) -> None:
        self._on_error("metrics", None)
        for label, before, after in zip(self._names, given, kept, strict=True):
            if before != after:
                self._warn_once(label)

    def _warn_once(self, label: str) -> None:
        if label not in self._folded:
            self._folded.add(label)
            _log.warning(
                "%s: label %s went beyond its declared bound; more values are counted as %s",
                self.metric.name,
                label,
                OVERFLOW,
            )


class Counter(_Series[prometheus_client.Counter]):
    """A count that only rises."""

    def inc(self, amount: float = 1, **labels: str) -> None:
        """The count is `amount` higher; a negative or infinite one is dropped and counted as a library error."""
        child = self._of(labels)
        try:
            child.inc(_finite(amount))
        except (TypeError, ValueError) as error:
            self._on_error("metrics", error)


class Gauge(_Series[prometheus_client.Gauge]):
    """A value that rises and falls."""

    def set(self, value: float, **labels: str) -> None:
        """The value is `value`."""
        child = self._of(labels)
        try:
            child.set(value)
        except (TypeError, ValueError) as error:
            self._on_error("metrics", error)

    def inc(self, amount: float = 1, **labels: str) -> None:
        """The value is `amount` higher."""
        child = self._of(labels)
        try:
            child.inc(amount)
        except TypeError as error:
            self._on_error("metrics", error)

    def dec(self, amount: float = 1, **labels: str) -> None:
        """The value is `amount` lower."""
        self.inc(-amount, **labels)

    def follow(self, read: Callable[[], float], **labels: str) -> None:
        """Each scrape asks `read` for the value; where it raises, the value is NaN and the error is counted."""

        def guarded() -> float:
            try:
                return float(read())
            except Exception as error:  # noqa: BLE001 - a probe never fails a scrape
                self._on_error("probes", error)
                return nan

        self._of(labels).set_function(guarded)


class Histogram(_Series[prometheus_client.Histogram]):
    """How values spread over the declared buckets."""

    def observe(self, value: float, **labels: str) -> None:
        """One more value, in the metric's base unit; one that is not finite is dropped and counted as an error."""
        child = self._of(labels)
        try:
            child.observe(_finite(value))
        except (TypeError, ValueError) as error:
            self._on_error("metrics", error)


def _finite(number: float) -> float:
    # One NaN in a sum makes a NaN of it until the process ends.
    if not isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


class _WithoutCreated(Collector):
    """A collector whose `_created` series are left out: the catalogue does not declare them.

    prometheus_client can only switch them off for the whole process, which is not ours to decide.
    """

    def __init__(self, collector: MetricWrapperBase) -> None:
        self._collector = collector

    def describe(self) -> Iterable[Family]:
        return self._collector.describe()

    def collect(self) -> Iterable[Family]:
        for family in self._collector.collect():
            created = f"{family.name}_created"
            family.samples = [s for s in family.samples if s.name != created]
            yield family


class _DeclaredProcess(Collector):
    """The series of prometheus_client's process collector that the catalogue declares."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._source = ProcessCollector(registry=None)
        self._helps = {metric.family: metric.help for metric in metrics}
        self._kinds = {metric.family: metric.kind.value for metric in metrics}

    def describe(self) -> Iterable[Family]:
        return [Family(name, text, self._kinds[name]) for name, text in self._helps.items()]

    def collect(self) -> Iterable[Family]:
        for family in self._source.collect():
            if family.name in self._helps:
                family.documentation = self._helps[family.name]
                yield family


class Instruments:
    """Everything one process of a service can measure: `counter`, `gauge` and `histogram` by metric.

    target: whose metrics these are; `service`, `shipper` or a target that the catalogue declares.
    """

    def __init__(self, catalogue: Catalogue, *, target: str = "service") -> None:
        self.catalogue = catalogue
        self.target = target
        self.registry = CollectorRegistry(auto_describe=False)
        self._reported: set[tuple[str, type[BaseException]]] = set()
        self._errors: Counter | None = None
        mine = tuple(metric for metric in catalogue.all_metrics if metric.target == target)
        process = tuple(metric for metric in mine if metric.name.startswith(_PROCESS))
        if process:
            self.registry.register(_DeclaredProcess(process))
        self._made: dict[str, Counter | Gauge | Histogram] = {
            metric.name: self._make(metric) for metric in mine if metric not in process
        }
        errors = self._made.get(LIBRARY_ERRORS.name)
        self._errors = errors if isinstance(errors, Counter) else None

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

    def failed(self, component: str, error: BaseException | None = None) -> None:
        """An error inside the library is counted, and logged the first time that its kind is seen.

        component: one that `taskscope.library.errors` lists. Never raises.
        """
        if self._errors is not None:
            kind = "none" if error is None else type(error).__name__
            self._errors.at((component, kind)).inc()
        # An error of the log path is not logged: that would feed it.
        if error is None or component == "logs" or (component, type(error)) in self._reported:
            return
        self._reported.add((component, type(error)))
        _log.warning("an error inside the library was kept from the request", exc_info=error)

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
        names = metric.label_names
        if metric.kind is Kind.COUNTER:
            counter = prometheus_client.Counter(metric.family, metric.help, names, registry=None)
            self.registry.register(_WithoutCreated(counter))
            # The counter of errors must not count its own folds: that would not end.
            quiet = metric.name == LIBRARY_ERRORS.name
            return Counter(metric, counter, _ignore if quiet else self.failed)
        if metric.kind is Kind.GAUGE:
            gauge = prometheus_client.Gauge(metric.family, metric.help, names, registry=None)
            self.registry.register(_WithoutCreated(gauge))
            return Gauge(metric, gauge, self.failed)
        histogram = prometheus_client.Histogram(
            metric.family,
            metric.help,
            names,
            registry=None,
            buckets=self.catalogue.buckets(metric),
        )
        self.registry.register(_WithoutCreated(histogram))
        return Histogram(metric, histogram, self.failed)


def _ignore(component: str, error: BaseException | None) -> None:
    del component, error
