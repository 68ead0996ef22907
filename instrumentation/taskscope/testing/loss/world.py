"""What a cell plays with: writers, shippers and a spool of its own, beside the one server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, TypeVar

from taskscope.logs.segments import pending
from taskscope.testing.loss.node import Node
from taskscope.testing.loss.outcome import STORED, Outcome, judged, number, read_records
from taskscope.testing.loss.processes import Process
from taskscope.testing.smalldisk import SmallDisk
from taskscope.testing.waiting import until

if TYPE_CHECKING:
    from taskscope.testing.loss.cells import Cell

__all__ = ["NO_LOGIN", "Node", "Pace", "World", "played"]

NO_LOGIN: Final = {"ELASTICSEARCH_USERNAME": "", "ELASTICSEARCH_PASSWORD": ""}
"""For a shipper that is given a key instead."""

_T = TypeVar("_T")
_WRITER: Final = (sys.executable, "-m", "taskscope.testing.loss.writer")
_NONE: Final[Mapping[str, str]] = {}
_START_S: Final = 60.0
_LOOK_S: Final = 0.2
_NUMBER_BYTES: Final = len(number(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How hard and how long a cell goes.

    writers: processes that log. rate: lines a second of each. before_s, after_s: seconds of writing before and after
    the fault. outage_s: how long a server is away. settle_s: within which something must go on arriving.
    repeats: how often a fault is made that takes but a moment.
    """

    writers: int = 3
    rate: float = 2_000.0
    before_s: float = 5.0
    after_s: float = 5.0
    outage_s: float = 30.0
    settle_s: float = 180.0
    repeats: int = 2
    segment_bytes: int = 4 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class World:
    """One run of one cell. folder: of this run alone. service: whose data stream it is.

    ship, setup, replay: the words that move a spool's lines for ever, that put the templates, and that send dead
    letters again; worker: those of a writer that ships as well, in its own process. All find what they need in the
    environment. prefix: words before those of writers and shippers.
    """

    node: Node
    ship: tuple[str, ...]
    setup: tuple[str, ...]
    replay: tuple[str, ...]
    worker: tuple[str, ...]
    folder: Path
    service: str
    pace: Pace
    prefix: tuple[str, ...] = ()
    spool: Path = field(init=False)
    seen: Path = field(init=False)
    records: Path = field(init=False)
    writers: list[Process] = field(default_factory=list)
    shippers: list[Process] = field(default_factory=list)
    note: str = ""
    _kept: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.spool = self.seen = self.folder / "spool"
        self.records = self.folder / "records"
        self.records.mkdir(parents=True)
        (self.folder / "loss_catalogue.py").write_text(
            f"from taskscope import Catalogue\nCATALOGUE = Catalogue(service={self.service!r})\n"
        )

    @property
    def stream(self) -> str:
        """The data stream that the lines go to."""
        return f"logs-{self.service}-local"

    def write(self, *more: str, ships: bool = False, environ: Mapping[str, str] = _NONE) -> Process:
        """One more writer is started. ships: whether it is one that ships as well. environ: on top of the usual."""
        name = f"w{len(self.writers)}"
        words = [*self.prefix, *(self.worker if ships else _WRITER), "--name", name]
        words += ["--records", str(self.records), "--service", self.service]
        words += ["--rate", str(self.pace.rate), *more]
        login = self._login(self.node.url) if ships else {}
        writer = Process(
            words,
            environ={**self._environ(), **login, **environ},
            said=self.folder / f"{name}.txt",
        )
        self.writers.append(writer)
        return writer

    def write_all(
        self, *more: str, ships: bool = False, environ: Mapping[str, str] = _NONE
    ) -> None:
        """All writers log, and each has recorded a line."""
        names = [f"w{len(self.writers) + at}" for at in range(self.pace.writers)]
        for _ in names:
            self.write(*more, ships=ships, environ=environ)
        for name in names:
            until(partial(self.stored, name), within_s=_START_S, saying=f"{name} logs")

    def shipper(self, *, url: str = "", **environ: str) -> Process:
        """One more shipper works, or waits for the lock. url: another way to the server."""
        shipper = Process(
            [*self.prefix, *self.ship],
            environ={**self._environ(), **self._login(url or self.node.url), **environ},
            said=self.folder / f"shipper{len(self.shippers)}.txt",
        )
        self.shippers.append(shipper)
        return shipper

    def set_up(self) -> None:
        """The templates are there, put by a login that may."""
        self._run(self.setup, "setup")

    def replay_letters(self) -> None:
        """Those of the dead letters that can be stored now are."""
        self._run(self.replay, "replay")

    def keep(self, context: AbstractContextManager[_T]) -> _T:
        """What the context gives; it lasts until the run's processes have ended."""
        return self._kept.enter_context(context)

    def use(self, disk: SmallDisk) -> None:
        """The spool is on that disk."""
        self.prefix = disk.prefix
        self.spool = disk.folder
        self.seen = disk.seen

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
        least, since = None, monotonic()
        while waiting := pending(self.seen, now=0.0).bytes:
            if least is None or waiting < least:
                least, since = waiting, monotonic()
            if monotonic() - since > self.pace.settle_s:
                raise AssertionError(
                    f"{waiting:,} bytes wait in the spool and nothing moves for {self.pace.settle_s:g} s; they count "
                    "as lost here"
                )
            sleep(_LOOK_S)

    def close(self) -> None:
        """No process of the run is left."""
        for process in (*self.writers, *self.shippers):
            if process.alive:
                process.stop()
        self._kept.close()

    def _run(self, words: tuple[str, ...], name: str) -> None:
        process = Process(
            [*self.prefix, *words],
            environ={**self._environ(), **self._login(self.node.url)},
            said=self.folder / f"{name}.txt",
        )
        code = process.ended(within_s=_START_S)
        if code:
            raise AssertionError(f"{name} ended with {code}: {process.text()[-300:]}")

    def _login(self, url: str) -> dict[str, str]:
        return {
            "ELASTICSEARCH_URL": url,
            "ELASTICSEARCH_USERNAME": self.node.admin.name,
            "ELASTICSEARCH_PASSWORD": self.node.admin.password,
        }

    def _environ(self) -> dict[str, str]:
        path = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(part for part in path if part),
            "TASKSCOPE_ENVIRONMENT": "local",
            "TASKSCOPE_SEGMENT_BYTES": str(self.pace.segment_bytes),
            "TASKSCOPE_SPOOL": str(self.spool),
        }


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
