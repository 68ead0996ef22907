"""The shipper's own series."""

from __future__ import annotations

import copy
from typing import Protocol

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    LOG_AGE,
    LOG_BATCH_DURATION,
    LOG_DEAD_LETTERS,
    LOG_DISCARDED,
    LOG_DUPLICATES,
    LOG_IN_DOUBT,
    LOG_RETRIES,
    LOG_SHIPPED,
    LOG_SHIPPER_UP,
    SPOOL_SIZE,
)
from taskscope.logs.backlog import Backlog
from taskscope.metrics.instruments import Gauge, Instruments
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import audit_spool

__all__ = ["ShipperMetrics"]


class State(Protocol):
    """What is set to 1 while all is well, and to 0 else."""

    def set(self, value: float) -> None: ...


class ShipperMetrics:
    """The shipper's own series, in a registry of their own: those of lines and of audit lines together."""

    def __init__(self, catalogue: Catalogue, settings: ShipSettings) -> None:
        instruments = Instruments(catalogue, target="shipper")
        self.registry = instruments.registry
        self._gauge = instruments.gauge(LOG_SHIPPER_UP)
        self._states: dict[str, float] = {}
        self.up: State = _Part(self._gauge, self._states, "lines")
        self.shipped = instruments.counter(LOG_SHIPPED)
        self.duplicates = instruments.counter(LOG_DUPLICATES)
        self.retries = instruments.counter(LOG_RETRIES)
        self.dead = instruments.counter(LOG_DEAD_LETTERS)
        self.dead.at(
            ("damaged_line",)
        )  # there from the start: none is a 0, and no series a shipper that is gone
        self.discarded = instruments.counter(LOG_DISCARDED)
        self.in_doubt = instruments.counter(LOG_IN_DOUBT)
        self.duration = instruments.histogram(LOG_BATCH_DURATION)
        backlogs = [Backlog(folder) for folder in (settings.spool, audit_spool(settings.spool))]
        instruments.gauge(LOG_AGE).follow(lambda: max(each.look().oldest_s for each in backlogs))
        instruments.gauge(SPOOL_SIZE).follow(lambda: sum(each.look().bytes for each in backlogs))

    def of_audit(self) -> ShipperMetrics:
        """The same series for the shipper of the audit lines: connected is who ships all of them."""
        own = copy.copy(self)
        own.up = _Part(self._gauge, self._states, "audit")
        return own


class _Part:
    """One of those that must all be well for the gauge to say so."""

    def __init__(self, gauge: Gauge, states: dict[str, float], name: str) -> None:
        self._gauge = gauge
        self._states = states
        self._name = name

    def set(self, value: float) -> None:
        self._states[self._name] = value
        self._gauge.set(min([*self._states.values()]))
