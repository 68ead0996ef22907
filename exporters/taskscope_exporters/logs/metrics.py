"""The shipper's own series."""

from __future__ import annotations

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
from taskscope.metrics.instruments import Instruments
from taskscope_exporters.logs.settings import ShipSettings

__all__ = ["ShipperMetrics"]


class ShipperMetrics:
    """The shipper's own series, in a registry of their own."""

    def __init__(self, catalogue: Catalogue, settings: ShipSettings) -> None:
        instruments = Instruments(catalogue, target="shipper")
        self.registry = instruments.registry
        self.up = instruments.gauge(LOG_SHIPPER_UP)
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
        backlog = Backlog(settings.spool)
        instruments.gauge(LOG_AGE).follow(lambda: backlog.look().oldest_s)
        instruments.gauge(SPOOL_SIZE).follow(lambda: backlog.look().bytes)
