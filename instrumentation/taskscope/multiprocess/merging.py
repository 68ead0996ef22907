"""What several processes counted, as one sum, where it is known which cells belong together. Pure; no I/O.

The sum goes over runs of cells that lie alike in a file and in the whole, in C.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from taskscope.catalogue import Across
from taskscope.metrics.store import Exemplar, Reading, Series
from taskscope.multiprocess.layout import Definition, Entry, exemplars

__all__ = ["COMBINE", "Plan", "Run", "Source", "latest", "newest_first", "readings", "total"]


Combine = Callable[[float, float], float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One file as it was read. cells: as many as its series need. live: whether its process runs."""

    name: str
    id: bytes
    live: bool
    created: int
    entries: tuple[Entry, ...]
    cells: Sequence[float]
    exemplars: bytes = b""
    is_fold: bool = False


class Run(NamedTuple):
    """Cells that lie alike in a file, from `source` on, and in the whole, from `target` on."""

    source: int
    target: int
    length: int
    combine: Combine


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where each series of the whole stands, and where each source's cells go.

    start: the whole before anything is added. runs: by source. outdated: sources of which some series were left
    out, because a younger process declares them otherwise.
    """

    series: tuple[Series, ...]
    definitions: tuple[Definition, ...]
    bases: tuple[int, ...]
    start: array[float]
    runs: tuple[tuple[Run, ...], ...]
    outdated: tuple[int, ...]


def newest_first(sources: Iterable[Source]) -> list[Source]:
    """Live sources, then dead ones, then the fold; the youngest first, which decides what a series is."""
    return sorted(
        sources, key=lambda source: (source.is_fold, not source.live, -source.created, source.id)
    )


def _most(a: float, b: float) -> float:
    # Not a number: no worker has said anything yet.
    return b if a != a or b > a else a


def _least(a: float, b: float) -> float:
    return b if a != a or b < a else a


COMBINE: Final[dict[Across, Combine]] = {
    Across.SUM: operator.add,
    Across.MAX: _most,
    Across.MIN: _least,
}


def total(
    start: array[float], runs: Iterable[tuple[tuple[Run, ...], Sequence[float]]]
) -> array[float]:
    """The cells of the whole: `start`, and each source's cells added where its runs say."""
    cells = start[:]
    for mine, theirs in runs:
        for source, target, length, combine in mine:
            if length == 1:
                cells[target] = combine(cells[target], theirs[source])
            else:
                end = target + length
                cells[target:end] = array(
                    "d", map(combine, cells[target:end], theirs[source : source + length])
                )
    return cells


def latest(
    runs_of: Sequence[tuple[Run, ...]], sources: Sequence[Source], known: Mapping[int, Exemplar]
) -> dict[int, Exemplar]:
    """The latest exemplar of each cell of the whole, those `known` included."""
    found = dict(known)
    for runs, source in zip(runs_of, sources, strict=False):
        if not source.exemplars or not runs:
            continue
        begins = [run.source for run in runs]
        for cell, exemplar in exemplars(source.exemplars):
            run = runs[bisect_right(begins, cell) - 1]
            offset = cell - run.source
            if not 0 <= offset < run.length:
                continue
            target = run.target + offset
            last = found.get(target)
            if last is None or last.at < exemplar.at:
                found[target] = exemplar
    return found


def readings(plan: Plan, cells: array[float], found: Mapping[int, Exemplar]) -> list[Reading]:
    """Each series of the plan with its cells and exemplars."""
    by_series: dict[int, dict[int, Exemplar]] = {}
    for cell, exemplar in found.items():
        at = bisect_right(plan.bases, cell) - 1
        by_series.setdefault(at, {})[cell - plan.bases[at]] = exemplar
    nothing: dict[int, Exemplar] = {}
    return [
        Reading(series, cells[base:end], by_series.get(at, nothing))
        for at, (series, base, end) in enumerate(
            zip(plan.series, plan.bases, (*plan.bases[1:], len(cells)), strict=False)
        )
    ]
