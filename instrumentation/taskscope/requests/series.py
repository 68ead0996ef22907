"""The series of requests: how one that opens and one that closes moves them, at the least cost.

Read by the outermost layer. Every request moves each of duration, first byte and size exactly once; whose cells
these are is looked up in one dictionary, by method, route, status and outcome. Where the values live in the memory
of this process, they are noted in lists and written together, before each scrape and at least every SETTLE_EVERY
requests: that costs a third of writing each, and a process that dies takes both with it. In a file that other
processes read they are written at once.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from time import time
from typing import Final, TypeVar

from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    LIBRARY_TIME,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.metrics.children import GaugeChild, HistogramChild
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.store import Exemplar, MemoryStore
from taskscope.requests.fields import METHODS

__all__ = [
    "MOST_PREPARED",
    "SETTLE_AT",
    "SETTLE_EVERY",
    "Key",
    "Noted",
    "Prepared",
    "RequestSeries",
    "exemplify",
]

MOST_PREPARED: Final = 16_384
"""The most combinations of labels that are kept at hand; others are looked up for each request."""
SETTLE_EVERY: Final = 128
"""As many requests are noted at most before they are written."""
_MANY: Final = 12
"""From so many values on, counting them in one go is cheaper than one by one."""

_T = TypeVar("_T")

Noted = dict[tuple[str, str, int], list[float]]
"""Requests that ended well, by method, route and status: duration, first byte and size of each in turn."""
VALUES: Final = 3
"""So many values are noted of each."""
SETTLE_AT: Final = SETTLE_EVERY * VALUES
"""Whoever notes so many values calls `settle`."""
Key = tuple[str, str, int, str]
"""Method, route, status, outcome. The method may be one that nobody knows; it is counted as `_OTHER`."""


class Prepared:
    """The three histograms of one combination of labels.

    folds: what counts so many more requests whose labels were folded. together: they and the gauge lie in one store.
    """

    __slots__ = ("children", "folds", "together")

    def __init__(
        self,
        children: tuple[HistogramChild, HistogramChild, HistogramChild],
        active: GaugeChild,
        folds: tuple[Callable[[int], None], ...],
    ) -> None:
        self.children = children
        self.folds = folds
        self.together = all(child.store is active.store for child in children)

    def count_folds(self, requests: int) -> None:
        """So many requests of a combination that is kept are told of as folded, if it is."""
        for fold in self.folds:
            fold(requests)

    def settle(self, values: list[float]) -> None:
        """Many requests are written: duration, first byte and size of each in turn."""
        for place, child in enumerate(self.children):
            _write(child, values[place::3])

    def write(self, seconds: float, first_byte_s: float, size: int) -> None:
        """One request is written at once."""
        for child, value in zip(self.children, (seconds, first_byte_s, size), strict=True):
            _write(child, [value])

    def write_and_leave(
        self, active: GaugeChild, seconds: float, first_byte_s: float, size: int
    ) -> None:
        """One request is written at once, and is not under way any more; for those that lie together."""
        one, two, three = self.children
        of_seconds = one.base + bisect_left(one.bounds, seconds)
        of_first_byte = two.base + bisect_left(two.bounds, first_byte_s)
        of_size = three.base + bisect_left(three.bounds, size)
        store = active.store
        with store.lock:
            cells = store.cells
            cells[of_seconds] += 1.0
            cells[one.base + len(one.bounds) + 1] += seconds
            cells[of_first_byte] += 1.0
            cells[two.base + len(two.bounds) + 1] += first_byte_s
            cells[of_size] += 1.0
            cells[three.base + len(three.bounds) + 1] += size
            cells[active.base] -= 1.0


class RequestSeries:
    """Moves the series of one application's requests.

    noted: requests that ended well and are not written yet; None where each is written at once. Whoever notes one
    calls `settle` when there are SETTLE_EVERY of its kind. opened: how many requests there were, where they are noted.
    """

    __slots__ = (
        "_active",
        "_duration",
        "_failed",
        "_first_byte",
        "_library",
        "_library_s",
        "_opened",
        "_prepared",
        "_settler",
        "_size",
        "_store",
        "finished",
        "noted",
    )

    def __init__(self, instruments: Instruments, opened: Callable[[], int]) -> None:
        self._duration = instruments.histogram(REQUEST_DURATION)
        self._first_byte = instruments.histogram(TIME_TO_FIRST_BYTE)
        self._size = instruments.histogram(RESPONSE_SIZE)
        active = instruments.gauge(ACTIVE_REQUESTS)
        self._active = active.at(())
        self._library = instruments.counter(LIBRARY_TIME).at(())
        self._prepared: dict[Key, Prepared] = {}
        self._store = instruments.store
        self._failed = instruments.failed
        self._library_s = 0.0
        self._settler = 0
        self._opened = opened
        self.finished = 0
        self.noted: Noted | None = None
        if isinstance(instruments.store, MemoryStore):
            self.noted = {}
            active.follow(self._settled)

    def opened(self) -> None:
        """One more request is under way; where they are noted, `opened` tells."""
        if self.noted is None:
            self._active.inc()

    def counting(self, take: Callable[[], _T]) -> Callable[[], _T]:
        """As `take`, and one more request is under way then. It costs a third of `opened` beside it."""
        store, base = self._active.store, self._active.base

        def taken() -> _T:
            found = take()
            with store.lock:
                store.cells[base] += 1.0
            return found

        return taken

    def left(self) -> None:
        """One request less is under way."""
        if self.noted is None:
            self._active.dec()
        else:
            with self._store.lock:
                self.finished += 1

    def closed(self, key: Key, seconds: float, first_byte_s: float, size: int) -> Prepared:
        """A request is in the series; the answer is where. size: bytes of the response's body."""
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepare(key)
        else:
            prepared.count_folds(1)
        prepared.write(seconds, first_byte_s, size)
        return prepared

    def at_hand(self, key: Key) -> Prepared | None:
        """The histograms of that combination, if it is among those that are kept."""
        return self._prepared.get(key)

    def ended_well(
        self, prepared: Prepared, seconds: float, first_byte_s: float, size: int
    ) -> None:
        """The request is in the series that are kept, and under way no more, in one step. Never raises."""
        try:
            for fold in prepared.folds:
                fold(1)
            prepared.write_and_leave(self._active, seconds, first_byte_s, size)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("metrics", error)

    def spent(self, seconds: float) -> None:
        """The library took so many seconds of its requests."""
        if self.noted is None:
            self._library.inc(seconds)
        else:
            self._library_s += seconds

    def settle(self) -> None:
        """All that was noted is written, by one thread at a time; what others note meanwhile stays."""
        process = os.getpid()
        with self._store.lock:
            if self._settler == process:
                return  # this thread was interrupted here; in a fork the one that was is gone
            self._settler = process
            try:
                spent, self._library_s = self._library_s, 0.0
                self._library.inc(spent)
                for (method, route, status), values in tuple((self.noted or {}).items()):
                    if values:
                        self._write_down((method, route, status, "ok"), values)
            finally:
                self._settler = 0

    def _write_down(self, key: Key, values: list[float]) -> None:
        written, prepared = values[:], self._prepared[key]
        prepared.settle(written)
        del values[: len(written)]
        prepared.count_folds(len(written) // VALUES)
        self.finished += len(written) // VALUES  # with the store's lock held

    def _settled(self) -> float:
        self.settle()
        waiting = sum(map(len, (self.noted or {}).values())) // VALUES
        return max(0, self._opened() - self.finished - waiting)

    def _prepare(self, key: Key) -> Prepared:
        asked, route, status, outcome = key
        method = asked if asked in METHODS else "_OTHER"
        of_duration, others = (method, route, str(status), outcome), (method, route)
        places = (
            (self._duration, of_duration),
            (self._first_byte, others),
            (self._size, others),
        )
        one, two, three = [histogram.at(values) for histogram, values in places]
        folds = [fold for histogram, values in places if (fold := histogram.fold(values))]
        prepared = Prepared((one, two, three), self._active, tuple(folds))
        # Methods that nobody knows are the caller's words, and there is no end of them.
        if prepared.together and method == asked and len(self._prepared) < MOST_PREPARED:
            self._prepared[key] = prepared
            # The body of an answer to HEAD is not sent; so few of them are not worth a question for all others.
            if self.noted is not None and outcome == "ok" and method != "HEAD":
                self.noted[method, route, status] = []
        return prepared


def exemplify(prepared: Prepared, trace: tuple[str, str], observed: tuple[float, ...]) -> None:
    """The request's trace is the exemplar of the buckets that it fell into. trace: ids of it and of its span."""
    now = time()
    for child, value in zip(prepared.children, observed, strict=True):
        cell = child.base + bisect_left(child.bounds, value)
        exemplar = Exemplar(*trace, value, now)
        with child.store.lock:
            child.store.exemplify(cell, exemplar)


def _write(child: HistogramChild, values: list[float]) -> None:
    store, base, bounds = child.store, child.base, child.bounds
    if len(values) > _MANY:
        fallen = _fallen(bounds, sorted(values))
    else:
        fallen = [(bisect_left(bounds, value), 1) for value in values]
    with store.lock:
        cells = store.cells
        cells[base + len(bounds) + 1] += sum(values)
        for bucket, number in fallen:
            cells[base + bucket] += number


def _fallen(bounds: tuple[float, ...], values: list[float]) -> list[tuple[int, int]]:
    """How many of the values, which rise, fell into each bucket: a look for each bound, not for each value."""
    fallen, before, number = [], 0, len(values)
    for bucket, bound in enumerate(bounds):
        upto = bisect_right(values, bound, before)
        if upto > before:
            fallen.append((bucket, upto - before))
            before = upto
            if upto == number:
                return fallen
    fallen.append((len(bounds), number - before))
    return fallen
