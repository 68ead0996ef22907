"""What a store holds as text for Prometheus: the bytes that prometheus_client writes, several times faster.

Read by `exposition`. What of a series never changes, its names and labels, is put together once and kept with
gaps for the numbers; a scrape then fills the gaps of each series in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import inf
from threading import Lock
from time import sleep
from typing import Final

from taskscope.catalogue import Kind, Metric
from taskscope.metrics.families import number
from taskscope.metrics.store import Exemplar, Reading

__all__ = ["KEPT_CHARACTERS", "Renderer"]

KEPT_CHARACTERS: Final = 16 * 1024 * 1024
"""The most text that is kept from one scrape to the next; series beyond it are put together each time."""

_PAUSE_EVERY: Final = 256
_PAUSE_S: Final = 1e-5
_PLAIN: Final = 1e6
"""Below it, and above -inf, a number is written as Python writes it; above it as Go does, 1e+06."""


class Renderer:
    """Text of readings, in either format; safe for several threads.

    metrics: whose families are written in this order, also without series; others follow as they come.
    """

    def __init__(
        self, metrics: Iterable[Metric] = (), *, kept_characters: int = KEPT_CHARACTERS
    ) -> None:
        self._lock = Lock()
        self._room = kept_characters
        self._declared = tuple(metrics)
        self._families = {metric.name: _Family(metric) for metric in self._declared}

    def render(
        self, readings: Iterable[Reading], *, openmetrics: bool, guests: bytes = b""
    ) -> bytes:
        """The readings as prometheus_client's `generate_latest` of that format writes them, without `_created`.

        guests: other families in the same format, without its end mark, to stand after ours.
        """
        grouped = self._grouped(readings)
        with self._lock:
            parts: list[str] = []
            for name, of_metric in grouped.items():
                family = self._families.get(name)
                if family is None:
                    family = self._families[name] = _Family(of_metric[0].series.metric)
                parts.append(family.heads[openmetrics])
                self._write(family, of_metric, openmetrics, parts)
            if len(self._families) > len(grouped):
                self._forget(grouped)
        return "".join(parts).encode() + guests + (b"# EOF\n" if openmetrics else b"")

    @property
    def kept_series(self) -> int:
        """How many series' texts are kept for the next scrape."""
        return sum(len(family.templates) for family in self._families.values())

    def _grouped(self, readings: Iterable[Reading]) -> dict[str, list[Reading]]:
        grouped: dict[str, list[Reading]] = {metric.name: [] for metric in self._declared}
        for place, reading in enumerate(readings, 1):
            name = reading.series.metric.name
            try:
                grouped[name].append(reading)
            except KeyError:
                grouped[name] = [reading]
            if not place % _PAUSE_EVERY:
                _let_others_run()
        return grouped

    def _write(
        self, family: _Family, readings: list[Reading], openmetrics: bool, parts: list[str]
    ) -> None:
        templates = family.templates
        if len(templates) > len(readings):
            alive = {reading.series.values for reading in readings}
            self._room += family.drop([values for values in templates if values not in alive])
        histogram = family.metric.kind is Kind.HISTOGRAM
        write = _written_histogram if histogram else _written
        for place, reading in enumerate(readings, 1):
            series = reading.series
            template = templates.get(series.values)
            if template is None or series.bounds is not family.bounds:
                template = self._template(family, reading)
            if openmetrics and reading.exemplars:
                parts.append(_with_exemplars(template, reading, histogram))
            else:
                parts.append(write(template, reading))
            if not place % _PAUSE_EVERY:
                _let_others_run()

    def _template(self, family: _Family, reading: Reading) -> str:
        series = reading.series
        if not family.templates:
            family.bounds = series.bounds
        elif series.bounds != family.bounds:  # of workers whose versions differ, for a while
            return _lines(series.metric, series.values, series.bounds)
        kept = family.templates.get(series.values)
        if kept is None:
            kept = _lines(series.metric, series.values, series.bounds)
            if len(kept) <= self._room:
                self._room -= len(kept)
                family.templates[series.values] = kept
        return kept

    def _forget(self, grouped: Mapping[str, object]) -> None:
        for name in [name for name in self._families if name not in grouped]:
            family = self._families.pop(name)
            self._room += family.drop(list(family.templates))


def _let_others_run() -> None:
    # Whoever waits for the interpreter would get it only after 5 ms; an event loop waits so at each of its turns.
    sleep(_PAUSE_S)


class _Family:
    """What of one metric is the same in each scrape. templates: by label values, with gaps for the numbers."""

    __slots__ = ("bounds", "heads", "metric", "templates")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.bounds: tuple[float, ...] = ()
        self.templates: dict[tuple[str, ...], str] = {}
        told = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        kind = metric.kind.value
        classic = (
            metric.series
        )  # of a counter with _total, which OpenMetrics says only of its series
        self.heads = (
            f"# HELP {classic} {told}\n# TYPE {classic} {kind}\n",
            f"# HELP {metric.family} {_quoted(metric.help)}\n# TYPE {metric.family} {kind}\n",
        )

    def drop(self, values: list[tuple[str, ...]]) -> int:
        """These series' texts are not kept any more; how many characters that frees."""
        return sum(len(self.templates.pop(each)) for each in values)


def _written(template: str, reading: Reading) -> str:
    value = reading.cells[0]
    return template % (value if -inf < value < _PLAIN else number(value))


def _written_histogram(template: str, reading: Reading) -> str:
    numbers = _numbers(reading)
    # Counts only rise: none is above the last one.
    if numbers[-2] < _PLAIN and -inf < numbers[-1] < _PLAIN:
        return template % tuple(numbers)
    return template % tuple(map(number, numbers))


def _numbers(reading: Reading) -> list[float]:
    """The buckets cumulated, the count, the sum."""
    cells = reading.cells
    numbers = list(accumulate(cells))
    numbers[-1] = numbers[-2]
    numbers.append(cells[-1])
    return numbers


def _with_exemplars(template: str, reading: Reading, histogram: bool) -> str:
    numbers = _numbers(reading) if histogram else [reading.cells[0]]
    exemplars = reading.exemplars
    return template % tuple(
        [
            number(value) + _exemplar(exemplars[cell]) if cell in exemplars else number(value)
            for cell, value in enumerate(numbers)
        ]
    )


def _exemplar(exemplar: Exemplar) -> str:
    return (
        f' # {{span_id="{_quoted(exemplar.span_id)}",trace_id="{_quoted(exemplar.trace_id)}"}} '
        f"{number(exemplar.value)} {exemplar.at}"
    )


def _lines(metric: Metric, values: tuple[str, ...], bounds: tuple[float, ...]) -> str:
    """The lines of one series, each with a gap for its number."""
    labels = list(zip(metric.label_names, values, strict=True))
    if metric.kind is not Kind.HISTOGRAM:
        return f"{metric.series}{_labels(labels)} %s\n"
    lines = [
        f"{metric.family}_bucket{_labels([*labels, ('le', number(bound))])} %s\n"
        for bound in (*bounds, inf)
    ]
    lines.append(f"{metric.family}_count{_labels(labels)} %s\n")
    # A sum that may fall is no counter, and prometheus_client does not write one.
    visible = not bounds or bounds[0] >= 0
    lines.append(f"{metric.family}_sum{_labels(labels)} %s\n" if visible else "%.0s")
    return "".join(lines)


def _labels(labels: list[tuple[str, str]]) -> str:
    if not labels:
        return ""
    written = [f'{name}="{_quoted(value)}"' for name, value in sorted(labels)]
    return "{" + ",".join(written).replace("%", "%%") + "}"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
