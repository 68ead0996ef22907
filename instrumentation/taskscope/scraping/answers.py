"""What one scrape says: this process's series, or all workers', and those of other registries beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric as Family

from taskscope.adoption import Aliases
from taskscope.catalogue.builtin import FILES_SKIPPED, WORKERS
from taskscope.metrics.guests import Guests, Registry
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.rendering import Renderer
from taskscope.metrics.store import Reading
from taskscope.multiprocess import WorkerFolder, foreign_multiprocess

__all__ = ["Answers"]

FOREIGN_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client's own workers write; its metrics are read from there when it is set."""
_MOST_SKIPPED: Final = 1_024


class Answers:
    """Renders the exposition of one service.

    folder: that of all worker processes of this instance, or None for this process alone.
    registries: metrics of prometheus_client that the service has already. aliases: old names that are kept alive.
    Raises InstrumentError if the catalogue declares one of those old names itself.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        folder: Path | None = None,
        registries: Iterable[Registry] = (),
        aliases: Iterable[Aliases] = (),
    ) -> None:
        self._instruments = instruments
        self._workers = (
            None
            if folder is None
            else WorkerFolder(
                folder,
                service=instruments.catalogue.service,
                known=instruments.metrics,
                failed=instruments.failed,
            )
        )
        self._renderer = Renderer(instruments.metrics)
        self._skipped = instruments.counter(FILES_SKIPPED)
        self._alive = instruments.gauge(WORKERS)
        self._alive.set(1)
        self._aliases = tuple(aliases)
        for each in self._aliases:
            each.check(instruments.catalogue)
        old = [metric for each in self._aliases for metric in each.metrics]
        self._guests = Guests(
            self._chosen(registries),
            metrics=(*instruments.metrics, *old),
            failed=instruments.failed,
        )

    def render(self, openmetrics: bool) -> bytes:
        """The whole exposition, in one format. Raises MultiprocessError if the workers' folder is not to be trusted."""
        readings = self._readings(openmetrics)
        for old in self._aliases:
            try:
                readings += old.readings(readings)
            except Exception as error:  # noqa: BLE001 - the page goes on without the old names
                self._instruments.failed("exposition", error)
        guests = self._guests.render(openmetrics=openmetrics)
        return self._renderer.render(readings, openmetrics=openmetrics, guests=guests)

    def _readings(self, exemplars: bool) -> list[Reading]:
        if self._workers is None:
            return list(self._instruments.readings())
        self._instruments.refresh()
        collected = self._workers.collect(exemplars=exemplars)
        for _, reason in collected.skipped:
            self._skipped.at((reason,)).inc()
        for reading in collected.readings:
            if reading.series.metric.name == WORKERS.name:
                reading.cells[0] = collected.workers
        return collected.readings

    def _chosen(self, registries: Iterable[Registry]) -> tuple[Registry, ...]:
        registries = tuple(registries)
        folder = os.environ.get(FOREIGN_FOLDER)
        if not registries or self._workers is None or not folder:
            return registries
        # There each process's registry holds its own share alone; the sum is in the folder.
        return (_ForeignWorkers(Path(folder), self._instruments),)


class _ForeignWorkers:
    """The metrics that prometheus_client's own multi-process mode keeps in a folder."""

    def __init__(self, folder: Path, instruments: Instruments) -> None:
        self._folder = folder
        self._failed = instruments.failed
        self._skipped = instruments.counter(FILES_SKIPPED)
        self._told: set[tuple[str, str]] = set()

    def collect(self) -> Iterable[Family]:
        found = foreign_multiprocess(self._folder)
        for fault in found.skipped:
            if fault not in self._told and len(self._told) < _MOST_SKIPPED:
                self._told.add(fault)
                self._skipped.at((fault[1],)).inc()
        return found.families
