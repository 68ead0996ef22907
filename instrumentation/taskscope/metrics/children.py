"""One label set of a metric, ready to be written to: what a hot path keeps and calls.

Read by `instruments`, which makes them, and by whoever writes several at once:

    with child.store.lock:
        child.store.cells[child.base] += 1.0

There each child is written to its own `store`: one that came when a store was full has another.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import inf
from typing import Final

from taskscope.metrics.store import Exemplar, Store

__all__ = ["CounterChild", "GaugeChild", "HistogramChild", "OnError"]

OnError = Callable[[str, BaseException | None], None]

_COMPONENT: Final = "metrics"


class CounterChild:
    """A count that only rises. base: its cell in `store`."""

    __slots__ = ("_failed", "base", "bounds", "store")

    def __init__(self, store: Store, base: int, bounds: tuple[float, ...], failed: OnError) -> None:
        self.store = store
        self.base = base
        self.bounds = bounds
        self._failed = failed

    def inc(self, amount: float = 1.0, exemplar: Exemplar | None = None) -> None:
        """The count is `amount` higher; a negative one, or one that is not finite, is dropped and counted."""
        try:
            if not 0.0 <= amount < inf:  # NaN is neither; one in a sum stays until the process ends
                self._failed(_COMPONENT, ValueError(f"a counter cannot rise by {amount}"))
                return
            store = self.store
            with store.lock:
                store.cells[self.base] += amount
                if exemplar is not None:
                    store.exemplify(self.base, _checked(exemplar))
        except Exception as error:  # noqa: BLE001 - a measurement never fails a request
            self._failed(_COMPONENT, error)


class GaugeChild:
    """A value that rises and falls. base: its cell in `store`."""

    __slots__ = ("_failed", "base", "bounds", "store")

    def __init__(self, store: Store, base: int, bounds: tuple[float, ...], failed: OnError) -> None:
        self.store = store
        self.base = base
        self.bounds = bounds
        self._failed = failed

    def set(self, value: float) -> None:
        """The value is `value`, which may be infinite or NaN."""
        try:
            store = self.store
            with store.lock:
                store.cells[self.base] = value
        except Exception as error:  # noqa: BLE001 - a measurement never fails a request
            self._failed(_COMPONENT, error)

    def inc(self, amount: float = 1.0) -> None:
        """The value is `amount` higher."""
        try:
            store = self.store
            with store.lock:
                store.cells[self.base] += amount
        except Exception as error:  # noqa: BLE001 - a measurement never fails a request
            self._failed(_COMPONENT, error)

    def dec(self, amount: float = 1.0) -> None:
        """The value is `amount` lower."""
        try:
            store = self.store
            with store.lock:
                store.cells[self.base] -= amount
        except Exception as error:  # noqa: BLE001 - a measurement never fails a request
            self._failed(_COMPONENT, error)


class HistogramChild:
    """How values spread over buckets. base: the first bucket's cell in `store`; bounds: the buckets', rising."""

    __slots__ = ("_failed", "_sum", "base", "bounds", "store")

    def __init__(self, store: Store, base: int, bounds: tuple[float, ...], failed: OnError) -> None:
        self.store = store
        self.base = base
        self.bounds = bounds
        self._failed = failed
        self._sum = base + len(bounds) + 1

    def observe(self, value: float, exemplar: Exemplar | None = None) -> None:
        """One more value, in the metric's base unit; one that is not finite is dropped and counted."""
        try:
            if not -inf < value < inf:
                self._failed(_COMPONENT, ValueError(f"{value} is not finite"))
                return
            cell = self.base + bisect_left(self.bounds, value)
            store = self.store
            with store.lock:
                cells = store.cells
                # The sum first: what is no number is refused before the bucket has counted it.
                cells[self._sum] += value
                cells[cell] += 1.0
                if exemplar is not None:
                    store.exemplify(cell, _checked(exemplar))
        except Exception as error:  # noqa: BLE001 - a measurement never fails a request
            self._failed(_COMPONENT, error)


def _checked(exemplar: Exemplar) -> Exemplar:
    # One that is no exemplar would fail each scrape from now on.
    if type(exemplar) is not Exemplar:
        raise TypeError(
            f"an exemplar is a taskscope.metrics.store.Exemplar, not {type(exemplar).__name__}"
        )
    return exemplar
