"""Moves lines from a spool folder into a data stream, for ever: each arrives, once.

A batch is acknowledged on disk only when each of its lines is stored, was stored before, or lies in the dead-letter
file. Until then it is sent again under the same ids, so it does not matter who dies when.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.segments import Batch, SpoolReader
from taskscope_exporters.logs.client import Cause, Trouble, connect, hushed, translated, untraced
from taskscope_exporters.logs.deadletters import FILE_NAME, Letter, bury
from taskscope_exporters.logs.delivery import Delivery, Work
from taskscope_exporters.logs.install import ensure
from taskscope_exporters.logs.metrics import ShipperMetrics
from taskscope_exporters.logs.notices import Notices
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import log_template, stream_name

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Say", "Shipper", "ShipperMetrics"]

Say = Callable[[str], None]

_FIRST_PAUSE_S: Final = 0.1
_LEAST_LINES: Final = 8
_USUAL_LINE_BYTES: Final = 512


@dataclass(slots=True, kw_only=True)
class Shipper:
    """One shipper of one spool folder; its caller holds the folder's lock.

    stop: once set, `run` ships what is there for at most `flush_s`, as long as nothing fails, and returns.
    say: told one sentence at each change of state. stream: where to, by default the service's own.
    patience_s: how long Elasticsearch may be out of reach or refuse before it has ever been well; None is for ever.
    wait: pauses up to so many seconds. rng: spreads the pauses. clock: seconds that no setting of the time moves.
    now: seconds since 1970.
    """

    settings: ShipSettings
    catalogue: Catalogue
    metrics: ShipperMetrics
    stop: threading.Event
    say: Say
    stream: str = ""
    rng: random.Random = field(default_factory=random.Random)
    wait: Callable[[float], object] | None = None
    patience_s: float | None = None
    flush_s: float = 5.0
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    lost: Trouble | None = None
    _client: Elasticsearch | None = None
    _work: Work | None = None
    _failures: int = 0
    _trouble: str = ""
    _lines: int = 0
    _line_bytes: int = _USUAL_LINE_BYTES
    _more: bool = False
    _began: float = 0.0
    _flush_until: float | None = None
    _drained: bool = False
    _was_well: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _notices: Notices = field(init=False)

    def __post_init__(self) -> None:
        self._notices = Notices(folder=self.settings.spool, say=self.say)

    def run(self) -> None:
        """Ships until `stop` is set, and then what it can for a moment. Raises nothing: what fails is said, counted
        and tried again.

        It gives up only at its start: when Elasticsearch was never well within `patience_s`, `lost` says why.
        """
        self.stream = self.stream or stream_name(self.catalogue.service, self.settings.environment)
        self._lines = self.settings.batch_lines
        self._began = self.clock()
        with ExitStack() as around:
            around.callback(self._ended.set)
            around.callback(self._drop_client)
            around.enter_context(hushed())
            around.enter_context(untraced())
            reader = SpoolReader(self.settings.spool)
            delivery = Delivery(
                settings=self.settings,
                stream=self.stream,
                metrics=self.metrics,
                say=self.say,
                clock=self.clock,
            )
            around.callback(delivery.look_up.close)
            while self._goes_on():
                self._step(reader, delivery)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Whether all lines are shipped, after at most so many seconds; the rest waits on disk. `run` returns."""
        self.flush_s = timeout_s
        self.stop.set()
        self._ended.wait(timeout_s)
        return self._drained

    def _goes_on(self) -> bool:
        if self.lost is not None:
            return False
        if not self.stop.is_set():
            return True
        if self._flush_until is None:
            self._flush_until = self.clock() + self.flush_s
        return not (self._drained or self._failures or self.clock() >= self._flush_until)

    def _step(self, reader: SpoolReader, delivery: Delivery) -> None:
        try:
            client = self._ready_client(delivery)
            work = self._next(reader)
            if work is None:
                self._drained = self.stop.is_set()
                self._well()
                self._pause(self.settings.pause_s)
            else:
                self._deliver(client, delivery, work, reader)
        except Trouble as trouble:
            self._back_off(trouble)
        except OSError as error:
            self._back_off(
                Trouble(
                    Cause.REFUSED,
                    f"spool {self.settings.spool} cannot be read or tidied: {error.strerror}; mend the folder or "
                    "free the disk, nothing is dropped",
                )
            )
        except Exception as error:  # noqa: BLE001 # whatever it is, the lines wait and the next try may do
            self._back_off(
                Trouble(
                    Cause.REFUSED,
                    f"unexpected {type(error).__name__}: {error!s:.300}; nothing is dropped",
                )
            )

    def _ready_client(self, delivery: Delivery) -> Elasticsearch:
        """A client whose login was accepted, and whose server has the templates as far as the login may tell."""
        if self._client is None:
            client = connect(self.settings)
            try:
                self._install(client)
            except BaseException:
                client.close()
                raise
            self._client = client
            self._was_well = True
            delivery.look_up.begin()
        return self._client

    def _install(self, client: Elasticsearch) -> None:
        template = log_template(self.catalogue.service, self.settings.streams)
        try:
            with translated(self.settings):
                changes = ensure(client, template)
        except Trouble as trouble:
            # A login that may only write is enough where somebody else has put the templates.
            if trouble.cause is not Cause.REFUSED or not _is_forbidden(trouble):
                raise
            changes = ()
        for change in changes:
            self.say(change)

    def _next(self, reader: SpoolReader) -> Work | None:
        """What is under way, or the next batch, or None when nothing waits."""
        if self._work is None:
            batch = self._read(reader)
            self._notices.read(reader)
            if batch is not None:
                self._work = Work.of(
                    batch, max_lines=self._lines, max_bytes=self.settings.batch_bytes
                )
        return self._work

    def _read(self, reader: SpoolReader) -> Batch | None:
        lines = self._lines * self.settings.in_flight
        # What is read beyond the lines is read in vain, so no more than they took the last time, and a little.
        room = min(self.settings.batch_bytes * self.settings.in_flight, lines * self._line_bytes)
        batch = reader.batch(max_lines=lines, max_bytes=room)
        # To wait makes the next batch larger only where somebody writes.
        self._more = batch is not None and batch.ended
        if batch is not None and batch.raws:
            taken = batch.end - batch.offsets[0]
            self._more |= len(batch.raws) == lines or taken + LINE_BYTES > room
            self._line_bytes = 16 + taken * 17 // (16 * len(batch.raws))
        return batch

    def _deliver(
        self, client: Elasticsearch, delivery: Delivery, work: Work, reader: SpoolReader
    ) -> None:
        """The work is done and acknowledged, or what is left of it waits for the next step."""
        tries = 0
        while work.left:
            # After a failure one after the other, until one is through.
            width = 1 if self._failures else self.settings.in_flight
            again = delivery.attempt(client, work, at_once=width)
            self._succeeded()
            if again:
                self._pause(self._spread(tries))
                tries += 1
            if work.left and not self._goes_on():
                return
        if work.dead:
            self._bury(work.dead)
            work.dead = []
        self._acknowledge(reader, delivery, work.batch)
        self._work = None
        if not self._more:
            self._pause(self.settings.pause_s)

    def _bury(self, dead: list[Letter]) -> None:
        discarded = bury(self.settings.spool, dead, now=self.now())
        for letter in dead:
            self.metrics.dead.at((letter.kind,)).inc()
        self.metrics.discarded.inc(discarded)
        first = dead[0]
        self.say(
            f"{len(dead)} line(s) cannot be stored ({first.kind}: {first.reason:.200}); they lie in "
            f"{self.settings.spool / FILE_NAME}"
            + (f", but for {discarded} that had no room there" if discarded else "")
        )

    def _acknowledge(self, reader: SpoolReader, delivery: Delivery, batch: Batch) -> None:
        """The batch is done, on a full disk in memory alone: only so does its segment end, and make room."""
        try:
            reader.acknowledge(batch)
        except OSError as error:
            delivery.doubts.add(batch.segment, batch.end)  # for one who comes after a crash
            self._notices.unkept(error)
        else:
            delivery.doubts.settle(batch.segment, batch.end)
            self._notices.unkept(None)

    def _succeeded(self) -> None:
        self._lines = min(self.settings.batch_lines, self._lines * 2)
        self._well()

    def _well(self) -> None:
        """Elasticsearch has taken all there was; a login that was accepted counts while there was nothing yet."""
        self._failures = 0
        self.metrics.up.set(1)
        if self._trouble:
            self._trouble = ""
            self.say(f"{self.settings.url} takes lines again")

    def _back_off(self, trouble: Trouble) -> None:
        """Says the trouble once, waits, and then begins again from what is acknowledged."""
        self.metrics.up.set(0)
        cause = Cause.REFUSED if trouble.cause is Cause.MALFORMED else trouble.cause
        self.metrics.retries.inc(reason=cause.value)
        if not self._was_well and self.patience_s is not None:
            # Told once, by whoever reads `lost`; a server that is only late is no news.
            if self.clock() - self._began >= self.patience_s:
                self.lost = trouble
                return
        elif str(trouble) != self._trouble:
            self._trouble = str(trouble)
            self.say(self._trouble)
        if trouble.timed_out:
            # On a slow line a large batch would never end; a smaller one does.
            self._lines = max(_LEAST_LINES, self._lines // 2)
            if self._work is not None:
                self._work.halve(least=_LEAST_LINES)
        if cause is Cause.REFUSED:
            self._drop_client()  # the next one reads the login's file again
        self._pause(max(self._spread(self._failures), trouble.retry_after_s))
        self._failures += 1

    def _spread(self, failures: int) -> float:
        longest = min(self.settings.backoff_s, _FIRST_PAUSE_S * 2.0 ** min(failures, 16))
        return longest * self.rng.uniform(0.5, 1.0)

    def _pause(self, seconds: float) -> None:
        if self._flush_until is not None:
            self._ended.wait(max(0.0, min(seconds, self._flush_until - self.clock())))
        else:
            (self.wait or self.stop.wait)(seconds)

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _is_forbidden(trouble: Trouble) -> bool:
    return getattr(getattr(trouble.__cause__, "meta", None), "status", None) == 403
