"""Where values live: one flat array of doubles per process, one lock, and which cells belong to which series.

Read by `instruments` (which writes), `rendering` (which reads) and `multiprocess` (whose store is a file that
other processes read). A counter or a gauge is one cell. A histogram over n bounds is n + 2 cells: how many
values fell into each bucket, not cumulated, the one above the last bound included, and then their sum.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, MutableSequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import RLock
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from weakref import WeakSet

from taskscope.catalogue import Kind, Metric

__all__ = ["Exemplar", "MemoryStore", "Reading", "Series", "Store", "width"]

_NONE: Final[Mapping[int, Exemplar]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Series:
    """One label set of one metric. values: the labels' values in the metric's order. bounds: a histogram's."""

    metric: Metric
    values: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemplar:
    """The trace behind one observation: hexadecimal ids, the observed value, when, in seconds since 1970."""

    trace_id: str
    span_id: str
    value: float
    at: float


class Reading(NamedTuple):
    """A series and its cells at one moment. exemplars: by cell, counted from the series' first one.

    A tuple, because a scrape makes thousands of them: it takes half the time of a frozen dataclass.
    """

    series: Series
    cells: MutableSequence[float]
    exemplars: Mapping[int, Exemplar]


def width(series: Series) -> int:
    """How many cells a series takes."""
    return len(series.bounds) + 2 if series.metric.kind is Kind.HISTOGRAM else 1


class Store(Protocol):
    """What holds the values of this process.

    `cells` is looked up anew for each write: growth and fork put another one in its place.
    Every write, and `allocate`, happens with `lock` held. One thread may take it again: within any of our lines
    Python may collect garbage or handle a signal, that may log, and a line that is logged is counted here.
    """

    cells: MutableSequence[float]

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held for each write."""
        ...

    def allocate(self, series: Series) -> int | None:
        """The index of the series' first cell, zeroed; None where no room is left."""
        ...

    def exemplify(self, cell: int, exemplar: Exemplar) -> None:
        """The cell's exemplar is this one from now on."""
        ...

    def readings(self) -> Iterator[Reading]:
        """Every series of this process, in the order of allocation; copies, taken with the lock held."""
        ...


class MemoryStore:
    """The store of a single process: cells in memory, as many as there are series.

    A forked child goes on with a copy, under a lock of its own: another thread may have held its parent's.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.cells: MutableSequence[float] = array("d")
        self._series: list[tuple[Series, int, int]] = []
        self._exemplars: dict[int, Exemplar] = {}
        _alive.add(self)

    def allocate(self, series: Series) -> int | None:
        """The index of the series' first cell; there is always room."""
        base = len(self.cells)
        size = width(series)
        self.cells.extend([0.0] * size)
        self._series.append((series, base, base + size))
        return base

    def exemplify(self, cell: int, exemplar: Exemplar) -> None:
        """The cell's exemplar is this one from now on."""
        self._exemplars[cell] = exemplar

    def readings(self) -> Iterator[Reading]:
        """Every series in the order of allocation."""
        with self.lock:
            cells = self.cells[:]
            listed = tuple(self._series)
            exemplars = dict(self._exemplars)
        for series, base, end in listed:
            yield Reading(series, cells[base:end], _within(exemplars, base, end))


_alive: Final[WeakSet[MemoryStore]] = WeakSet()


def _renew_locks() -> None:
    for store in tuple(_alive):
        store.lock = RLock()


os.register_at_fork(after_in_child=_renew_locks)


def _within(exemplars: dict[int, Exemplar], base: int, end: int) -> Mapping[int, Exemplar]:
    if not exemplars:
        return _NONE
    found = {cell - base: exemplars[cell] for cell in range(base, end) if cell in exemplars}
    return found or _NONE
