"""Where values live: one flat array of doubles per process, one lock, and which cells belong to which series.

Read by `instruments` (which writes), `rendering` (which reads) and `multiprocess` (whose store is a file that
other processes read). A counter or a gauge is one cell. A histogram over n bounds is n + 2 cells: how many
values fell into each bucket, not cumulated, the one above the last bound included, and then their sum.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from taskscope.catalogue import Kind, Metric

__all__ = ["Exemplar", "MemoryStore", "Reading", "Series", "Store", "width"]


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


@dataclass(frozen=True, slots=True)
class Reading:
    """A series and its cells at one moment. exemplars: by cell, counted from the series' first one."""

    series: Series
    cells: MutableSequence[float]
    exemplars: Mapping[int, Exemplar]


def width(series: Series) -> int:
    """How many cells a series takes."""
    return len(series.bounds) + 2 if series.metric.kind is Kind.HISTOGRAM else 1


class Store(Protocol):
    """What holds the values of this process.

    `cells` is looked up anew for each write: growth and fork put another one in its place.
    Every write, and `allocate`, happens with `lock` held; the lock cannot be taken twice by one thread.
    """

    lock: Lock
    cells: MutableSequence[float]

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
    """The store of a single process: cells in memory, as many as there are series."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.cells: MutableSequence[float] = array("d")
        self._series: list[tuple[Series, int]] = []
        self._exemplars: dict[int, Exemplar] = {}

    def allocate(self, series: Series) -> int | None:
        """The index of the series' first cell; there is always room."""
        base = len(self.cells)
        self.cells.extend([0.0] * width(series))
        self._series.append((series, base))
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
        for series, base in listed:
            size = width(series)
            shown = {
                offset: exemplars[base + offset]
                for offset in range(size)
                if exemplars and base + offset in exemplars
            }
            yield Reading(series, cells[base : base + size], shown)
