"""Which series the whole has, and where each source's cells go in it. Pure; no I/O.

It costs Python per series, and is done when a worker comes, goes or has a new series, not at every scrape.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final

import msgspec

from taskscope.catalogue import Across, Kind, Label, Metric
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import MetricError
from taskscope.metrics.store import Series
from taskscope.multiprocess.layout import Definition, Entry, values_bytes
from taskscope.multiprocess.merging import COMBINE, Plan, Run, Source

__all__ = ["Metrics", "arrange", "everything"]

_RUN: Final = 4_096
"""The most cells of one call into C, which holds the interpreter for some 0.2 ms."""
_MAX_LABEL_SETS: Final = 10_000
_Shape = tuple[str, Kind, tuple[str, ...], Across]


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


class _Whole:
    """The series of the whole as they come, and the runs of one source after the other."""

    def __init__(self, metrics: Metrics) -> None:
        self.targets: dict[object, int] = {}
        self._metrics = metrics
        self._definitions: list[Definition] = []
        self._series: list[Series] = []
        self._bases: list[int] = []
        self._start = array("d")
        self._runs: list[tuple[Run, ...]] = []

    @property
    def cells(self) -> int:
        return len(self._start)

    def place(self, key: object, definition: Definition, blob: bytes) -> int | None:
        """Where the new series of `key` stands; None if the metric or the values cannot be."""
        metric, values = self._metrics.of(definition), self._metrics.values(blob)
        if metric is None or values is None or len(values) != len(definition.labels):
            return None
        target = self.targets[key] = len(self._start)
        self._definitions.append(definition)
        self._series.append(Series(metric, values, definition.bounds))
        self._bases.append(target)
        first = 0.0 if definition.across is Across.SUM else nan
        self._start.extend([first] * definition.width)
        return target

    def source(self, placed: Iterable[tuple[Entry, int]]) -> None:
        """The next source's entries and where they go."""
        self._runs.append(tuple(_runs(placed)))

    def plan(self, outdated: Iterable[int] = ()) -> Plan:
        """All that was placed."""
        return Plan(
            series=tuple(self._series),
            definitions=tuple(self._definitions),
            bases=tuple(self._bases),
            start=self._start,
            runs=tuple(self._runs),
            outdated=tuple(outdated),
        )


def arrange(sources: Sequence[Source], metrics: Metrics) -> Plan:
    """The plan of an answer: counters and histograms of all sources, gauges of the live ones.

    sources: newest first. Of one metric only one unit, kind and set of labels is shown, of one series only one set
    of bounds: those of the first source that has it.
    """
    whole = _Whole(metrics)
    election = _Election(metrics)
    outdated = []
    for number, source in enumerate(sources):
        placed: list[tuple[Entry, int]] = []
        passed_over = 0
        for entry in source.entries:
            definition, values, _ = entry
            if definition.kind is Kind.GAUGE and not source.live:
                passed_over += 1
                continue
            family = election.family(definition)
            key = (family, values)
            target = whole.targets.get(key)
            if family is None or not election.fits(key, definition):
                continue
            if target is None:
                target = whole.place(key, definition, values)
            if target is not None:
                placed.append((entry, target))
        whole.source(placed)
        if len(placed) + passed_over < len(source.entries):
            outdated.append(number)
    return whole.plan(outdated)


class _Election:
    """Whose word holds: of each metric the first unit, kind, labels and across, of each series the first bounds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._families: dict[Definition, str | None] = {}
        self._names: dict[str, str] = {}
        self._shapes: dict[str, _Shape] = {}
        self._chosen: dict[object, Definition] = {}

    def family(self, definition: Definition) -> str | None:
        """The Prometheus family of series that are shown; None for those of another mind than the first."""
        try:
            return self._families[definition]
        except KeyError:
            family = self._families[definition] = self._judge(definition)
            return family

    def fits(self, key: object, definition: Definition) -> bool:
        """Whether the series has the bounds that it has in the first source."""
        first = self._chosen.setdefault(key, definition)
        return first is definition or first.bounds == definition.bounds

    def _judge(self, definition: Definition) -> str | None:
        metric = self._metrics.of(definition)
        if metric is None:
            return None
        family = metric.family
        shape = (definition.name, definition.kind, definition.labels, definition.across)
        same = self._names.setdefault(definition.name, family) == family
        return family if same and self._shapes.setdefault(family, shape) == shape else None


def everything(sources: Sequence[Source], metrics: Metrics, *, room: int) -> Plan:
    """The plan of a fold: counters and histograms as each version declared them.

    room: cells; series beyond it are added to their metric's `__overflow__`.
    """
    whole = _Whole(metrics)
    for source in sources:
        placed: list[tuple[Entry, int]] = []
        for entry in source.entries:
            definition, values, _ = entry
            if definition.kind is Kind.GAUGE:
                continue
            target = whole.targets.get((definition, values))
            if target is None:
                if whole.cells + definition.width > room:
                    values = values_bytes((OVERFLOW,) * len(definition.labels))
                key = (definition, values)
                known = whole.targets.get(key)
                target = whole.place(key, definition, values) if known is None else known
            if target is not None:
                placed.append((entry, target))
        whole.source(placed)
    return whole.plan()


def _runs(placed: Iterable[tuple[Entry, int]]) -> Iterator[Run]:
    source = target = length = 0
    combine = COMBINE[Across.SUM]
    for (definition, _, base), at in placed:
        width = definition.width
        mine = COMBINE[definition.across]
        if (
            base == source + length
            and at == target + length
            and mine is combine
            and length + width <= _RUN
        ):
            length += width
            continue
        if length:
            yield Run(source, target, length, combine)
        source, target, length, combine = base, at, width, mine
    if length:
        yield Run(source, target, length, combine)
