"""Moves lines from a spool folder into a data stream, for ever: each arrives, once.

A batch is acknowledged on disk only when each of its lines is stored, was stored before, or lies in the dead-letter
file. Until then it is sent again under the same ids, so it does not matter who dies when.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DUPLICATES,
    LOG_RETRIES,
    LOG_SHIPPED,
    LOG_SHIPPER_UP,
    SPOOL_SIZE,
)
from taskscope.logs.segments import Batch, Line, SpoolReader, pending
from taskscope.metrics.instruments import Instruments
from taskscope_exporters.logs.bulk import Fate, Verdict, send
from taskscope_exporters.logs.client import Cause, Trouble, connect, translated
from taskscope_exporters.logs.deadletters import FILE_NAME, bury
from taskscope_exporters.logs.install import ensure
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import log_template, stream_name

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Say", "Shipper", "ShipperMetrics"]

Say = Callable[[str], None]

_FIRST_PAUSE_S: Final = 0.1
_LEAST_LINES: Final = 8
_DAMAGED: Final = Verdict(fate=Fate.DEAD, kind="damaged_line", reason="it is no JSON object")


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
        instruments.gauge(LOG_AGE).follow(lambda: pending(settings.spool, now=time.time()).oldest_s)
        instruments.gauge(SPOOL_SIZE).follow(lambda: pending(settings.spool, now=time.time()).bytes)


@dataclass(slots=True, kw_only=True)
class Shipper:
    """One shipper of one spool folder; its caller holds the folder's lock.

    stop: once set, `run` returns after the request under way. say: told one sentence at each change of state.
    patience_s: how long Elasticsearch may be out of reach or refuse before it has ever been well; None is for ever.
    wait: pauses up to so many seconds and returns whether to stop. rng: spreads the pauses.
    """

    settings: ShipSettings
    catalogue: Catalogue
    metrics: ShipperMetrics
    stop: threading.Event
    say: Say
    rng: random.Random = field(default_factory=random.Random)
    wait: Callable[[float], bool] | None = None
    patience_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    lost: Trouble | None = None
    _client: Elasticsearch | None = None
    _failures: int = 0
    _trouble: str = ""
    _lines: int = 0
    _told_torn: int = 0
    _told_aside: int = 0
    _told_unkept: bool = False
    _began: float = 0.0
    _was_well: bool = False

    def run(self) -> None:
        """Ships until `stop` is set. Raises nothing: what fails is said, counted and tried again.

        It gives up only at its start: when Elasticsearch was never well within `patience_s`, `lost` says why.
        """
        reader = SpoolReader(self.settings.spool)
        self._lines = self.settings.batch_lines
        self._began = self.clock()
        while not self.stop.is_set() and self.lost is None:
            try:
                client = self._ready_client()
                batch = reader.batch(max_lines=self._lines, max_bytes=self.settings.batch_bytes)
                self._report(reader)
                if batch is None:
                    self._well()
                    self._pause(self.settings.pause_s)
                elif self._deliver(client, batch):
                    self._acknowledge(reader, batch)
                    if len(batch.lines) < self._lines:
                        self._pause(self.settings.pause_s)
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
        self._drop_client()

    def _ready_client(self) -> Elasticsearch:
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

    def _deliver(self, client: Elasticsearch, batch: Batch) -> bool:
        """Every line of the batch has found its place; false if told to stop before."""
        dead: list[tuple[Line, Verdict]] = [(line, _DAMAGED) for line in batch.damaged]
        lines: Sequence[Line] = batch.lines
        tries = 0
        while lines:
            lines = self._send(client, lines, dead)
            if lines:
                self.metrics.retries.inc(reason=Cause.OVERLOADED.value)
                self._pause(self._spread(tries))
                tries += 1
                if self.stop.is_set():
                    return False
        if dead:
            bury(self.settings.spool, dead)
            self.metrics.dead.inc(len(dead))
            self.say(
                f"{len(dead)} line(s) cannot be stored ({dead[0][1].kind}: {dead[0][1].reason:.200}); they lie in "
                f"{self.settings.spool / FILE_NAME}"
            )
        return True

    def _send(
        self, client: Elasticsearch, lines: Sequence[Line], dead: list[tuple[Line, Verdict]]
    ) -> Sequence[Line]:
        """Sends the lines once; returns those to be sent again, and adds to `dead` those that never can be."""
        try:
            verdicts = send(client, self.settings, self._stream, lines)
        except Trouble as trouble:
            if trouble.cause is not Cause.MALFORMED:
                raise
            return self._narrow(client, lines, dead, trouble)
        if all(verdict.fate is Fate.RETRY for verdict in verdicts):
            # Such as a disk above its flood stage: the answer is 200, and yet no line is taken.
            raise Trouble(
                Cause.OVERLOADED,
                f"{self.settings.url} takes no line now ({verdicts[0].kind}: {verdicts[0].reason:.200}); give it room "
                "or time, the lines wait on disk",
            )
        self._succeeded()
        again: list[Line] = []
        for line, verdict in zip(lines, verdicts, strict=True):
            if verdict.fate is Fate.RETRY:
                again.append(line)
            elif verdict.fate is Fate.DEAD:
                dead.append((line, verdict))
        self.metrics.shipped.inc(sum(verdict.fate is Fate.STORED for verdict in verdicts))
        self.metrics.duplicates.inc(sum(verdict.fate is Fate.DUPLICATE for verdict in verdicts))
        return again

    def _narrow(
        self,
        client: Elasticsearch,
        lines: Sequence[Line],
        dead: list[tuple[Line, Verdict]],
        trouble: Trouble,
    ) -> Sequence[Line]:
        """A request that is refused for its content is halved until the line is found that it is refused for."""
        if len(lines) == 1:
            dead.append(
                (lines[0], Verdict(fate=Fate.DEAD, kind="refused_request", reason=str(trouble)))
            )
            return ()
        half = len(lines) // 2
        return [
            *self._send(client, lines[:half], dead),
            *self._send(client, lines[half:], dead),
        ]

    @property
    def _stream(self) -> str:
        return stream_name(self.catalogue.service, self.settings.environment)

    def _acknowledge(self, reader: SpoolReader, batch: Batch) -> None:
        """The batch is done, on a full disk in memory alone: only so does its segment end, and make room."""
        try:
            reader.acknowledge(batch)
        except OSError as error:
            if not self._told_unkept:
                self.say(
                    f"spool {self.settings.spool} cannot keep what is stored already: {error.strerror}; free the disk, "
                    "a restart until then sends lines again under the same ids"
                )
            self._told_unkept = True
        else:
            self._told_unkept = False

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
        if cause is Cause.REFUSED:
            self._drop_client()  # the next one reads the login's file again
        self._pause(self._spread(self._failures))
        self._failures += 1

    def _spread(self, failures: int) -> float:
        longest = min(self.settings.backoff_s, _FIRST_PAUSE_S * 2.0 ** min(failures, 16))
        return longest * self.rng.uniform(0.5, 1.0)

    def _pause(self, seconds: float) -> None:
        (self.wait or self.stop.wait)(seconds)

    def _report(self, reader: SpoolReader) -> None:
        if reader.torn > self._told_torn:
            self.say(
                f"{reader.torn - self._told_torn} half-written line(s) of a killed process dropped; none had been "
                "answered as written"
            )
            self._told_torn = reader.torn
        for name in reader.set_aside[self._told_aside :]:
            self.say(
                f"{name!r} in the spool is no segment of this user; it lies in {self.settings.spool / 'aside'}"
            )
        self._told_aside = len(reader.set_aside)

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _is_forbidden(trouble: Trouble) -> bool:
    return getattr(getattr(trouble.__cause__, "meta", None), "status", None) == 403
