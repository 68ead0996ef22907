"""A metric's counter, gauge or histogram: what a service's code calls by label name, and a hot path by label values.

Read by `instruments`, which makes one for each metric.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from taskscope.catalogue import Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS, OVERFLOWED
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import MetricError
from taskscope.metrics.cardinality import Capacity, LabelSets, lines, texts
from taskscope.metrics.children import CounterChild, GaugeChild, HistogramChild
from taskscope.metrics.exemplars import current_exemplar
from taskscope.metrics.store import MemoryStore, Series, Store

__all__ = ["Counter", "Gauge", "Histogram", "Instrument", "Owner"]

_COUNTS_FAULTS: Final = (LIBRARY_ERRORS.name, OVERFLOWED.name)
"""What counts the faults of others tells of none itself: that would not end."""

ChildT = TypeVar("ChildT", CounterChild, GaugeChild, HistogramChild)


class Owner(Protocol):
    """What the instruments of one process share."""

    store: Store
    capacity: Capacity
    strict: bool

    def failed(self, component: str, error: BaseException | None = None) -> None:
        """An error inside the library is counted. Never raises."""
        ...

    def folded(
        self, metric: Metric, given: tuple[object, ...], kept: tuple[str, ...], times: int = 1
    ) -> None:
        """Values that are kept as `__overflow__` are counted. Never raises."""
        ...

    def follow(self, child: GaugeChild, read: Callable[[], float]) -> None:
        """At each refresh the child is set to what `read` gives."""
        ...


class Instrument(Generic[ChildT]):
    """One metric's label sets, each held to the declared bounds and kept for the next use."""

    _child: type[ChildT]

    def __init__(self, metric: Metric, bounds: tuple[float, ...], owner: Owner) -> None:
        self.metric: Metric = metric
        self._bounds: tuple[float, ...] = bounds
        self._owner: Owner = owner
        self._names: tuple[str, ...] = metric.label_names
        self._store: Store = owner.store
        self._sets = LabelSets(metric, owner.capacity)
        self._children: dict[tuple[str, ...], ChildT] = {}
        self._spare: ChildT | None = None
        with self._store.lock:
            for values in self._sets.listed():
                self._place(values)

    def at(self, values: tuple[str, ...]) -> ChildT:
        """What these label values are written to, in their declared order and after folding."""
        try:
            child = self._children.get(values)
        except TypeError:  # a value that cannot be a key has a text all the same
            child = None
        return child if child is not None else self._admit(values)

    def fold(self, values: tuple[str, ...]) -> Callable[[int], None] | None:
        """What counts so many more folds of these label values, for who keeps what `at` gave for them.

        None for those that have a series of their own.
        """
        if values in self._children:
            return None
        with self._store.lock:
            _, kept = self._place(texts(values))
        return partial(self._owner.folded, self.metric, values, kept)

    def _of(self, labels: dict[str, str]) -> ChildT | None:
        names = self._names
        if len(labels) == len(names):
            try:
                return self.at(tuple([labels[name] for name in names]))
            except KeyError:
                pass
        error = MetricError(
            f"{self.metric.name}: labels {', '.join(sorted(labels)) or 'none'} were given; "
            f"give exactly {', '.join(names) or 'none'}"
        )
        if self._owner.strict:
            raise error
        self._owner.failed("metrics", error)
        return None

    def _admit(self, values: tuple[str, ...]) -> ChildT:
        given = texts(values)
        if len(given) != len(self._names):
            raise MetricError(
                f"{self.metric.name}: {len(given)} label values were given; "
                f"give one for each of {', '.join(self._names) or 'no labels'}, in this order"
            )
        with self._store.lock:
            child, kept = self._place(given)
        # Outside of the lock: what reports may log, and a line is counted too.
        if OVERFLOW in kept:
            self._owner.folded(self.metric, values, kept)
        if child is self._spare and self.metric.name not in _COUNTS_FAULTS:
            self._owner.failed("metrics", self._full())
        return child

    def _full(self) -> MetricError:
        return MetricError(
            f"{self.metric.name}: the store has no room for one more series; what is measured is lost, "
            "give it more room or declare fewer label values"
        )

    def _place(self, values: tuple[str, ...]) -> tuple[ChildT, tuple[str, ...]]:
        for step, kept in self._sets.folded(values):
            child = self._children.get(kept) or self._grown(step, kept)
            if child is not None:
                return child, kept
        return self._unseen(), self._sets.overflow

    def _grown(self, step: int, values: tuple[str, ...]) -> ChildT | None:
        capacity = self._owner.capacity
        # A forked child has a lock of its own, so that it does not take over a growth that goes on in its parent.
        lock = self._store.lock
        if capacity.growing is lock or not self._sets.has_room(step):
            return None
        capacity.growing = lock
        try:
            series = Series(self.metric, values, self._bounds)
            base = self._store.allocate(series)
            if base is None:
                return None
            child = self._child(self._store, base, self._bounds, self._owner.failed)
            self._sets.take(step, values, lines(series))
            self._children[values] = child
        finally:
            capacity.growing = None
        return child

    def _unseen(self) -> ChildT:
        """Where values go for which a full store has no cell, not even one for what overflows."""
        if self._spare is None:
            store = MemoryStore()
            store.allocate(Series(self.metric, self._sets.overflow, self._bounds))
            self._spare = self._child(store, 0, self._bounds, self._owner.failed)
        return self._spare


class Counter(Instrument[CounterChild]):
    """A count that only rises."""

    _child = CounterChild

    def inc(self, amount: float = 1, **labels: str) -> None:
        """The count is `amount` higher; a negative or infinite one is dropped and counted as a library error.

        Within a sampled request its trace is the exemplar.
        """
        child = self._of(labels)
        if child is not None:
            child.inc(amount, current_exemplar(amount))


class Gauge(Instrument[GaugeChild]):
    """A value that rises and falls."""

    _child = GaugeChild

    def set(self, value: float, **labels: str) -> None:
        """The value is `value`."""
        child = self._of(labels)
        if child is not None:
            child.set(value)

    def inc(self, amount: float = 1, **labels: str) -> None:
        """The value is `amount` higher."""
        child = self._of(labels)
        if child is not None:
            child.inc(amount)

    def dec(self, amount: float = 1, **labels: str) -> None:
        """The value is `amount` lower."""
        child = self._of(labels)
        if child is not None:
            child.dec(amount)

    def follow(self, read: Callable[[], float], **labels: str) -> None:
        """Each scrape asks `read` for the value; where it raises, the value is NaN and the error is counted."""
        child = self._of(labels)
        if child is not None:
            self._owner.follow(child, read)


class Histogram(Instrument[HistogramChild]):
    """How values spread over the declared buckets."""

    _child = HistogramChild

    def observe(self, value: float, **labels: str) -> None:
        """One more value, in the metric's base unit; one that is not finite is dropped and counted as an error.

        Within a sampled request its trace is the exemplar.
        """
        child = self._of(labels)
        if child is not None:
            child.observe(value, current_exemplar(value))
