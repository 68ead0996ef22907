"""Which series the whole has, and where each source's cells go in it. Pure; no I/O.

It costs Python per series, and is done when a worker comes, goes or has a new series, not at every scrape.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final, NamedTuple, TypeVar

import msgspec

from taskscope.catalogue import Across, Kind, Label, Metric
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import MetricError
from taskscope.multiprocess.layout import Definition, Entry, values_bytes
from taskscope.multiprocess.merging import COMBINE, Plan, Run, Source
from taskscope.store import Series

__all__ = ["Metrics", "arrange", "everything"]

_RUN: Final = 4_096
"""The most cells of one call into C, which holds the interpreter for some 0.2 ms."""
_MAX_LABEL_SETS: Final = 10_000


@dataclass(slots=True)
class Metrics:
    """Metrics by what files say of them: the process's own where it declares the same, else made from the file."""

    known: Mapping[str, Metric]
    _made: dict[Definition, Metric | None] = field(default_factory=dict)
    _values: dict[bytes, tuple[str, ...] | None] = field(default_factory=dict)

    def of(self, definition: Definition) -> Metric | None:
        """The metric; None where the file declares what cannot be."""
        if definition not in self._made:
            self._made[definition] = self._make(definition)
        return self._made[definition]

    def values(self, blob: bytes) -> tuple[str, ...] | None:
        """Label values from a file's JSON; None where it is none."""
        if blob not in self._values:
            try:
                self._values[blob] = msgspec.json.decode(blob, type=tuple[str, ...])
            except msgspec.MsgspecError:
                self._values[blob] = None
        return self._values[blob]

    def forget_all_but(self, plan: Plan) -> None:
        """What no series of the plan needs is forgotten, so that this does not grow with restarts."""
        self._made = {d: self._made[d] for d in plan.definitions if d in self._made}
        needed = {series.values for series in plan.series}
        self._values = {blob: v for blob, v in self._values.items() if v in needed}

    def _make(self, definition: Definition) -> Metric | None:
        own = self.known.get(definition.name)
        names = definition.labels
        if own is not None and _says(own) == (
            definition.kind,
            definition.unit,
            definition.across,
            names,
        ):
            return own
        try:
            return Metric(
                name=definition.name,
                kind=definition.kind,
                unit=definition.unit,
                help=definition.help,
                owner="another process",
                labels=tuple(
                    Label(name, cap=_MAX_LABEL_SETS, bounded_by="what its process declares")
                    for name in names
                ),
                buckets=definition.bounds,
                across=definition.across,
            )
        except MetricError:
            return None


def _says(metric: Metric) -> tuple[Kind, str, Across, tuple[str, ...]]:
    names = tuple(label.name for label in metric.labels)
    return metric.kind, metric.unit, metric.across, names


class _Place(NamedTuple):
    definition: Definition
    metric: Metric
    values: tuple[str, ...]


_Shape = tuple[str, Kind, tuple[str, ...], Across]
_Exact = tuple[Definition, bytes]
_Shown = tuple[str, bytes]
Key = TypeVar("Key", bound=Hashable)


def arrange(sources: Sequence[Source], metrics: Metrics) -> Plan:
    """The plan of an answer: counters and histograms of all sources, gauges of the live ones.

    sources: newest first. Of one family only one kind and set of labels is shown, of one series only one set of
    bounds: those of the first source that has it.
    """
    election = _Election({}, {}, {}, {})
    placed: list[list[tuple[Entry, _Shown]]] = []
    outdated = []
    for number, source in enumerate(sources):
        mine: list[tuple[Entry, _Shown]] = []
        shown = [
            entry
            for entry in source.entries
            if source.live or entry.definition.kind is not Kind.GAUGE
        ]
        for entry in shown:
            key = election.admit(entry, _place(entry, metrics))
            if key is not None:
                mine.append((entry, key))
        placed.append(mine)
        if len(mine) < len(shown):
            outdated.append(number)
    order = {metric.family: at for at, metric in enumerate(metrics.known.values())}
    families = election.families
    ranked = sorted(families, key=lambda family: (order.get(family, len(order)), family))
    places = {key: place for family in ranked for key, place in families[family].items()}
    return _laid_out(places, placed, tuple(outdated))


@dataclass(frozen=True, slots=True)
class _Election:
    """Whose word holds: of each metric the first unit, kind, labels and across, of each series the first bounds."""

    names: dict[str, str]
    shapes: dict[str, _Shape]
    bounds: dict[_Shown, tuple[float, ...]]
    families: dict[str, dict[_Shown, _Place]]

    def admit(self, entry: Entry, place: _Place | None) -> _Shown | None:
        """The series' key; None if it does not fit what was admitted before."""
        if place is None:
            return None
        definition = entry.definition
        family = place.metric.family
        shape = (definition.name, definition.kind, definition.labels, definition.across)
        if self.names.setdefault(definition.name, family) != family:
            return None
        if self.shapes.setdefault(family, shape) != shape:
            return None
        key = (family, entry.values)
        if self.bounds.setdefault(key, definition.bounds) != definition.bounds:
            return None
        self.families.setdefault(family, {}).setdefault(key, place)
        return key


def everything(sources: Sequence[Source], metrics: Metrics, *, room: int) -> Plan:
    """The plan of a fold: counters and histograms as each version declared them.

    room: cells; series beyond it are added to their metric's `__overflow__`.
    """
    places: dict[_Exact, _Place] = {}
    placed: list[list[tuple[Entry, _Exact]]] = []
    taken = 0
    for source in sources:
        mine: list[tuple[Entry, _Exact]] = []
        for entry in source.entries:
            if entry.definition.kind is Kind.GAUGE:
                continue
            place = _place(entry, metrics)
            if place is None:
                continue
            key = (entry.definition, entry.values)
            if key not in places and taken + entry.definition.width > room:
                values = (OVERFLOW,) * len(place.values)
                key = (entry.definition, values_bytes(values))
                place = place._replace(values=values)
            if key not in places:
                places[key] = place
                taken += entry.definition.width
            mine.append((entry, key))
        placed.append(mine)
    return _laid_out(places, placed, ())


def _place(entry: Entry, metrics: Metrics) -> _Place | None:
    metric = metrics.of(entry.definition)
    values = metrics.values(entry.values)
    if metric is None or values is None or len(values) != len(entry.definition.labels):
        return None
    return _Place(entry.definition, metric, values)


def _laid_out(
    places: Mapping[Key, _Place],
    placed: Sequence[Sequence[tuple[Entry, Key]]],
    outdated: tuple[int, ...],
) -> Plan:
    targets: dict[Key, int] = {}
    start = array("d")
    for key, place in places.items():
        targets[key] = len(start)
        definition = place.definition
        start.extend([nan if definition.across is not Across.SUM else 0.0] * definition.width)
    runs = tuple(
        tuple(_runs((entry, targets[key]) for entry, key in sorted(mine, key=lambda m: m[0].base)))
        for mine in placed
    )
    return Plan(
        series=tuple(Series(p.metric, p.values, p.definition.bounds) for p in places.values()),
        definitions=tuple(place.definition for place in places.values()),
        bases=tuple(targets.values()),
        start=start,
        runs=runs,
        outdated=outdated,
    )


def _runs(entries: Iterable[tuple[Entry, int]]) -> Iterator[Run]:
    run: Run | None = None
    for entry, target in entries:
        combine = COMBINE[entry.definition.across]
        width = entry.definition.width
        if (
            run is not None
            and combine is run.combine
            and entry.base == run.source + run.length
            and target == run.target + run.length
            and run.length + width <= _RUN
        ):
            run = run._replace(length=run.length + width)
            continue
        if run is not None:
            yield run
        run = Run(entry.base, target, width, combine)
    if run is not None:
        yield run
