"""What a cell plays with: writers, shippers and a spool of its own, beside the one server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from taskscope.logs.segments import pending
from taskscope.testing.loss.node import Node
from taskscope.testing.loss.outcome import STORED, Outcome, judged, number, read_records
from taskscope.testing.loss.processes import Process
from taskscope.testing.waiting import until

if TYPE_CHECKING:
    from taskscope.testing.loss.cells import Cell

__all__ = ["Node", "Pace", "World", "played"]

_START_S: Final = 60.0
_LOOK_S: Final = 0.1
_NUMBER_BYTES: Final = len(number(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How hard and how long a cell goes.

    writers: processes that log. rate: lines a second of each. before_s, after_s: seconds of writing before and after
    the fault. outage_s: how long a server is away. settle_s: within which everything must have arrived.
    """

    writers: int = 3
    rate: float = 2_000.0
    before_s: float = 5.0
    after_s: float = 5.0
    outage_s: float = 30.0
    settle_s: float = 180.0


@dataclass(slots=True, kw_only=True)
class World:
    """One run of one cell. ship: the words that move a spool's lines, found by the environment, for ever.

    folder: of this run alone. service: whose data stream it is. prefix: words before those of writers and shippers.
    """

    node: Node
    ship: tuple[str, ...]
    folder: Path
    service: str
    pace: Pace
    say: Callable[[str], None] = lambda _: None
    prefix: tuple[str, ...] = ()
    spool: Path = field(init=False)
    records: Path = field(init=False)
    writers: list[Process] = field(default_factory=list)
    shippers: list[Process] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        self.spool = self.folder / "spool"
        self.records = self.folder / "records"
        self.records.mkdir(parents=True)
        (self.folder / "loss_catalogue.py").write_text(
            f"from taskscope import Catalogue\nCATALOGUE = Catalogue(service={self.service!r})\n"
        )

    @property
    def stream(self) -> str:
        """The data stream that the lines go to."""
        return f"logs-{self.service}-local"

    def write(self, *more: str, **environ: str) -> Process:
        """One more writer logs, and its first line is recorded."""
        name = f"w{len(self.writers)}"
        words = [
            *self.prefix,
            sys.executable,
            "-m",
            "taskscope.testing.loss.writer",
            "--name",
            name,
        ]
        words += ["--records", str(self.records), "--service", self.service]
        words += ["--rate", str(self.pace.rate), *more]
        writer = Process(
            words, environ={**self._environ(), **environ}, said=self.folder / f"{name}.txt"
        )
        self.writers.append(writer)
        return writer

    def write_all(self, *more: str, **environ: str) -> None:
        """All writers log, and each has recorded a line."""
        names = [f"w{len(self.writers) + at}" for at in range(self.pace.writers)]
        for _ in names:
            self.write(*more, **environ)
        for name in names:
            until(partial(self.stored, name), within_s=_START_S, saying=f"{name} logs")

    def shipper(self, *, url: str = "", **environ: str) -> Process:
        """One more shipper works, or waits for the lock. url: another way to the server."""
        login = {
            "ELASTICSEARCH_URL": url or self.node.url,
            "ELASTICSEARCH_USERNAME": self.node.admin.name,
            "ELASTICSEARCH_PASSWORD": self.node.admin.password,
        }
        shipper = Process(
            [*self.prefix, *self.ship],
            environ={**self._environ(), **login, "PYTHONPATH": self._path(), **environ},
            said=self.folder / f"shipper{len(self.shippers)}.txt",
        )
        self.shippers.append(shipper)
        return shipper

    def stored(self, name: str = "") -> int:
        """How many lines were answered as stored until now, by one writer or by all."""
        pattern = f"{name or '*'}{STORED}"
        return sum(path.stat().st_size for path in self.records.glob(pattern)) // _NUMBER_BYTES

    def arrived(self, least: int) -> None:
        """At least so many lines are in Elasticsearch."""
        until(
            lambda: self.node.count(self.stream) >= least,
            within_s=self.pace.settle_s,
            saying=f"{least} lines arrive",
            every_s=_LOOK_S,
        )

    def flowing(self) -> None:
        """Lines arrive that were written after this was called."""
        self.arrived(self.node.count(self.stream) + 1)

    def log_for(self, seconds: float) -> None:
        """The writers have logged for so long."""
        sleep(seconds)

    def settle(self) -> None:
        """The writers have ended, and nothing of the spool waits for the shipper any more. Raises AssertionError."""
        for writer in self.writers:
            if writer.alive:
                writer.ask()
        for writer in self.writers:
            if writer.alive:
                writer.stop()
        until(
            lambda: pending(self.spool, now=0.0).bytes == 0,
            within_s=self.pace.settle_s,
            saying="the spool is drained",
            every_s=_LOOK_S,
        )

    def close(self) -> None:
        """No process of the run is left."""
        for process in (*self.writers, *self.shippers):
            if process.alive:
                process.stop()

    def _environ(self) -> dict[str, str]:
        return {"TASKSCOPE_SPOOL": str(self.spool), "TASKSCOPE_ENVIRONMENT": "local"}

    def _path(self) -> str:
        return os.pathsep.join(
            part for part in (str(self.folder), os.environ.get("PYTHONPATH", "")) if part
        )


def played(cell: Cell, world: World, *, round_: int = 1) -> Outcome:
    """The cell was played, its writers and shippers have ended, and its documents are counted."""
    began = monotonic()
    fault = ""
    try:
        try:
            cell.play(world)
            world.settle()
        finally:
            world.close()
            world.node.ensure()
    except AssertionError as error:
        fault = str(error)[:300]
    return judged(
        read_records(world.records),
        world.node.documents(world.stream),
        cell=cell.name,
        round_=round_,
        dropping=cell.dropping,
        seconds=monotonic() - began,
        note=world.note,
        fault=fault,
    )
