"""Answers of Prometheus as plain values and data frames. Pure; read by the pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from taskscope_ui.sources.prometheus import Line, Point, Sample

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIN_STEP_S", "by_label", "frame", "latest", "newest", "step_for"]

MIN_STEP_S: Final = 15.0
"""Rules are evaluated each 15 seconds: a finer step would only repeat values."""


def latest(samples: Sequence[Sample]) -> float | None:
    """The one finite value of an instant answer; None where there is none, or where it is not a number."""
    finite = [s.point.value for s in samples if math.isfinite(s.point.value)]
    return finite[0] if finite else None


def by_label(samples: Iterable[Sample], label: str) -> dict[str, float]:
    """The finite value of each series, by the value of one label."""
    return {
        s.labels[label]: s.point.value
        for s in samples
        if label in s.labels and math.isfinite(s.point.value)
    }


def newest(lines: Iterable[Line]) -> float | None:
    """The time of the last point of all lines, in seconds since 1970; None where there is no point."""
    return max((p.time for line in lines for p in line.points), default=None)


def step_for(span_s: float, *, points: int = 240) -> float:
    """Seconds between points so that `span_s` seconds take about `points` of them, in steps of MIN_STEP_S."""
    return max(MIN_STEP_S, math.ceil(span_s / points / MIN_STEP_S) * MIN_STEP_S)


def frame(lines: Mapping[str, Sequence[Line]], *, step_s: float) -> pd.DataFrame:
    """One row for each point: `time` (UTC), `measure` (the key it stands under) and `value`.

    A time without data leaves a row without a value, so that a drawn line breaks there and hides no outage.
    step_s: seconds between the points that were asked for.
    """
    import pandas as pd

    rows = [
        (name, time, value)
        for name, group in lines.items()
        for line in group
        for time, value in _with_gaps(line.points, step_s)
    ]
    table = pd.DataFrame(rows, columns=["measure", "time", "value"])
    table["time"] = pd.to_datetime(table["time"].astype("float64"), unit="s", utc=True)
    table["value"] = table["value"].astype("float64")
    return table


def _with_gaps(points: Sequence[Point], step_s: float) -> Iterator[tuple[float, float]]:
    last: float | None = None
    for point in points:
        if not math.isfinite(point.value):
            continue
        if last is not None and point.time - last > 1.5 * step_s:
            yield last + step_s, math.nan
        yield point.time, point.value
        last = point.time
