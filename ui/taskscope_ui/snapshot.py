"""What the page shows, asked from Prometheus in one go: values now, their limits, and the last hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope_ui.headroom import Reading
from taskscope_ui.measures import MEASURES, budgets, data_time, instances, limits, query
from taskscope_ui.series import by_label, latest, newest, step_for
from taskscope_ui.sources.prometheus import Line, Prometheus

__all__ = ["RANGES", "STALE_AFTER_S", "History", "Now", "history", "now"]

RANGES: Final[dict[str, float]] = {"1h": 3600.0, "3h": 10_800.0, "12h": 43_200.0, "24h": 86_400.0}
"""The spans that a reader may choose, in seconds."""

STALE_AFTER_S: Final = 60.0
"""Rules write each 15 seconds; a newest value older than this means that something stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The service at `asked`. Times are seconds since 1970, of Prometheus's clock.

    measured: when the newest value was written, also where it is hours old; None where there never was one.
    budgets: the share of each objective's error budget that is left, by objective; below 0 when overspent.
    """

    asked: float
    measured: float | None
    instances: int
    readings: tuple[Reading, ...]
    budgets: Mapping[str, float]

    @property
    def stale(self) -> bool:
        """Whether the newest value is too old to speak of now."""
        return self.measured is not None and self.asked - self.measured > STALE_AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The lines of each measure by its key from `start` to `end`, a point each `step_s` seconds."""

    start: float
    end: float
    lines: Mapping[str, tuple[Line, ...]]
    step_s: float


def now(prometheus: Prometheus, catalogue: Catalogue, *, capacity_rps: float) -> Now:
    """The service as Prometheus knows it at this moment. Raises SourceError."""
    clock = latest(prometheus.instant("time()")) or 0.0
    up = latest(prometheus.instant(instances(catalogue), at=clock)) or 0.0
    bounds = limits(catalogue, capacity_rps=capacity_rps, up=up)
    readings = tuple(
        Reading(
            measure=measure,
            value=latest(prometheus.instant(query(catalogue, measure), at=clock)),
            limit=bounds.get(measure.key),
        )
        for measure in MEASURES
    )
    measured = latest(prometheus.instant(data_time(catalogue), at=clock))
    if measured is None:
        measured = _last_seen(prometheus, catalogue, clock)
    return Now(
        asked=clock,
        measured=measured,
        instances=int(up),
        readings=readings,
        budgets=by_label(prometheus.instant(budgets(catalogue), at=clock), "slo"),
    )


def history(
    prometheus: Prometheus, catalogue: Catalogue, *, until: float, span_s: float
) -> History:
    """Every measure over the `span_s` seconds before `until`. Raises SourceError."""
    step_s = step_for(span_s)
    end = until - until % step_s  # points keep their places from one refresh to the next
    lines = {
        measure.key: prometheus.range(
            query(catalogue, measure), start=end - span_s, end=end, step_s=step_s
        )
        for measure in MEASURES
    }
    return History(start=end - span_s, end=end, lines=lines, step_s=step_s)


def _last_seen(prometheus: Prometheus, catalogue: Catalogue, clock: float) -> float | None:
    """When the service was last measured within a day; a lookback of five minutes hides it from a value now."""
    span = max(RANGES.values())
    lines = prometheus.range(
        data_time(catalogue), start=clock - span, end=clock, step_s=step_for(span)
    )
    seen = [point.value for line in lines for point in line.points]
    return max(seen, default=newest(lines))
