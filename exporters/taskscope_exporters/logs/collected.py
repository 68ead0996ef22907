"""The collector's series: counts that are shown only while they are fresh, and begin at 0 where Prometheus sees it."""

from __future__ import annotations

import time
from collections import Counter as Totals
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector as Source
from prometheus_client.registry import CollectorRegistry

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    COLLECTOR_DURATION,
    COLLECTOR_LAG,
    COLLECTOR_REQUESTS,
    COLLECTOR_UP,
    LEVELS,
    LOG_ERRORS,
    LOG_STORED,
)
from taskscope.metrics.families import families
from taskscope.metrics.handles import Counter
from taskscope.metrics.instruments import Instruments
from taskscope_exporters.logs.aggregates import NONE, Pair
from taskscope_exporters.logs.tally import Tally

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from taskscope.metrics.store import Reading

__all__ = ["CollectorMetrics"]

_FRESH: Final = frozenset({LOG_STORED.name, LOG_ERRORS.name, COLLECTOR_LAG.name})
"""What is not shown while nothing is counted: a value that stands still would pass for a quiet hour."""


class CollectorMetrics:
    """The series of one collector, in a registry of their own.

    stale_s: seconds after the last good look from which the counts are not shown.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        stale_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instruments = Instruments(catalogue, target="collector")
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._last_well: float | None = None
        self._lines = _Shown(self._instruments.counter(LOG_STORED))
        self._errors = _Shown(self._instruments.counter(LOG_ERRORS))
        self._behind = self._instruments.gauge(COLLECTOR_LAG)
        self._duration = self._instruments.histogram(COLLECTOR_DURATION)
        self.requests = self._instruments.counter(COLLECTOR_REQUESTS)
        self._instruments.gauge(COLLECTOR_UP).follow(lambda: float(self.fresh))
        # There from the start, so that no error shows as 0 and only a missing count as nothing.
        self._lines.resume(Totals({(level, catalogue.service): 0 for level in LEVELS}))
        self._errors.resume(Totals({(NONE, NONE): 0}))
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Series(self))

    @property
    def fresh(self) -> bool:
        """Whether the last look went well, and not too long ago."""
        last = self._last_well
        return last is not None and self._monotonic() - last <= self._stale_s

    def resume(self, tally: Tally) -> None:
        """The totals of an earlier run are shown as they were: Prometheus knows them."""
        self._lines.resume(tally.lines)
        self._errors.resume(tally.errors)

    def show(self, tally: Tally, *, behind: int) -> None:
        """The totals are those of the tally; a pair of labels that is new is 0 until the next time."""
        self._lines.show(tally.lines)
        self._errors.show(tally.errors)
        self._behind.set(behind)

    def look_took(self, seconds: float) -> None:
        """A look is over, well or not."""
        self._duration.observe(seconds)

    def well(self) -> None:
        """The counts are what there is."""
        self._last_well = self._monotonic()

    def failed(self) -> None:
        """The counts are not shown until a look goes well."""
        self._last_well = None

    def readings(self) -> Iterator[Reading]:
        """Every series that is shown now."""
        fresh = self.fresh
        for reading in self._instruments.readings():
            if fresh or reading.series.metric.name not in _FRESH:
                yield reading

    def families(self) -> Iterable[Family]:
        """The same for a registry."""
        return families(self.readings(), self._instruments.metrics)


class _Shown:
    """A counter that follows totals.

    A series that appears with a value has no increase in Prometheus' eyes; so it appears as 0, is scraped, and takes
    its value at the next look.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._shown: Totals[Pair] = Totals()

    def resume(self, totals: Totals[Pair]) -> None:
        for pair, total in totals.items():
            self._raise_to(pair, total)

    def show(self, totals: Totals[Pair]) -> None:
        for pair, total in totals.items():
            self._raise_to(pair, total if pair in self._shown else 0)

    def _raise_to(self, pair: Pair, total: int) -> None:
        child = self._counter.at(pair)
        more = total - self._shown[pair]
        self._shown[pair] = total
        if more > 0:
            child.inc(more)


class _Series(Source):
    def __init__(self, metrics: CollectorMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        return self._metrics.families()
