"""One batch on its way: every line of it is stored, was stored before, or lies with the dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taskscope.logs.segments import Batch
from taskscope_exporters.logs.bulk import Outcome, send
from taskscope_exporters.logs.client import Cause
from taskscope_exporters.logs.deadletters import Letter
from taskscope_exporters.logs.doubt import Doubts
from taskscope_exporters.logs.lanes import side_by_side
from taskscope_exporters.logs.lookup import LookUp
from taskscope_exporters.logs.metrics import ShipperMetrics
from taskscope_exporters.logs.portions import Portion, portions_of
from taskscope_exporters.logs.settings import ShipSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Delivery", "Work"]

_REMEDY: Final = (
    "name the checker.key that taskscope logs keys makes in ELASTICSEARCH_CHECK_KEY_FILE"
)


@dataclass(slots=True, kw_only=True)
class Work:
    """A batch that is being delivered. left: the portions that have not found their place yet; dead: those of its
    lines that never can."""

    batch: Batch
    left: list[Portion]
    dead: list[Letter] = field(default_factory=list)

    @classmethod
    def of(cls, batch: Batch, *, max_lines: int, max_bytes: int) -> Work:
        """Nothing of the batch is sent yet."""
        return cls(
            batch=batch,
            left=portions_of(batch, max_lines=max_lines, max_bytes=max_bytes),
            dead=[
                Letter(line=line, kind="damaged_line", reason="it is no JSON object")
                for line in batch.damaged
            ],
        )

    def halve(self, *, least: int) -> None:
        """Portions of more than so many lines go in two."""
        self.left = [half for portion in self.left for half in _halves(portion, least)]


def _halves(portion: Portion, least: int) -> tuple[Portion, ...]:
    half, count = len(portion) // 2, len(portion)
    if count <= least:
        return (portion,)
    return portion.only(range(half)), portion.only(range(half, count))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """One portion's request. lines: what was sent of it, without what a look-up found."""

    lines: Portion
    outcome: Outcome
    found: int = 0
    asked: bool = False


@dataclass(slots=True, kw_only=True)
class Delivery:
    """Sends portions to one stream, and keeps account of what the answers say.

    say: told once when lines in doubt went again unasked after a rollover, and once when the key for look-ups cannot be
    used.
    """

    settings: ShipSettings
    stream: str
    metrics: ShipperMetrics
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    doubts: Doubts = field(init=False)
    look_up: LookUp = field(init=False)
    _told: bool = False

    def __post_init__(self) -> None:
        self.doubts = Doubts(self.settings.spool, self.stream)
        self.look_up = LookUp(
            settings=self.settings,
            stream=self.stream,
            say=self.say,
            absent=self.doubts.clear,
            clock=self.clock,
        )

    def attempt(self, client: Elasticsearch, work: Work, *, at_once: int) -> int:
        """The first portions are sent, at most `at_once` side by side; what has to go again stays in the work.

        Returns how many lines the server bade to send again. Raises Trouble for the first portion that got no answer,
        after the others were accounted for.
        """
        portions = work.left[:at_once]
        results = side_by_side(lambda portion: self._send(client, portion), portions)
        again: list[Portion] = []
        troubles: list[Exception] = []
        for portion, result in zip(portions, results, strict=True):
            if isinstance(result, Exception):
                again.append(portion)
                troubles.append(result)
                if getattr(result, "doubtful", True):
                    self.doubts.add(portion.segment, portion.end)
            else:
                again += self._account(work, result)
                if result.outcome.refusal is not None:
                    troubles.append(result.outcome.refusal)
        for result in results:
            # Only now: what is in doubt since this round began in an older backing index.
            if not isinstance(result, Exception):
                self.doubts.saw(result.outcome.index)
        work.left[:at_once] = again
        if troubles:
            raise troubles[0]
        return sum(map(len, again))

    def _send(self, client: Elasticsearch, portion: Portion) -> _Sent:
        """The portion was sent once, without what is stored already as far as that can be known."""
        doubtful = self.doubts.covers(portion)
        lines, asked = portion, False
        if doubtful:
            left = self.look_up.missing(client, portion, since=self.doubts.since(portion))
            if left is not None:
                lines, asked = portion.only(left), True
        if not len(lines):
            return _Sent(lines=lines, outcome=Outcome(), found=len(portion), asked=asked)
        expected = self.doubts.since(portion) if doubtful and not asked else ""
        began = self.clock()
        outcome = send(client, self.settings, self.stream, lines, expected=expected)
        self.metrics.duration.observe(self.clock() - began)
        return _Sent(lines=lines, outcome=outcome, found=len(portion) - len(lines), asked=asked)

    def _account(self, work: Work, sent: _Sent) -> list[Portion]:
        """What is told of a portion is counted; returns what of it has to go again."""
        outcome, lines = sent.outcome, sent.lines
        self.metrics.shipped.inc(outcome.stored)
        self.metrics.duplicates.inc(outcome.duplicates + sent.found)
        if sent.asked:
            self.metrics.in_doubt.inc(sent.found, result="stored")
            self.metrics.in_doubt.inc(len(lines), result="missing")
        if outcome.strayed:
            self._tell_blind(outcome.strayed)
        work.dead += [
            Letter(line=lines.line(dead.place), kind=dead.kind, reason=dead.reason)
            for dead in outcome.dead
        ]
        if not outcome.again:
            return []
        again = lines.only(outcome.again)
        if outcome.doubtful:
            self.doubts.add(again.segment, again.end)
        if outcome.refusal is None:
            self.metrics.retries.inc(reason=Cause.OVERLOADED.value)
        return [again]

    def _tell_blind(self, count: int) -> None:
        """Lines in doubt were sent again after a rollover, and nobody might ask whether they are stored."""
        self.metrics.in_doubt.inc(count, result="unknown")
        if not self._told:
            self._told = True
            self.say(
                f"{count} line(s) whose answer was lost went again after a rollover of {self.stream} and may be stored "
                f"twice, as it could not be asked for them; {_REMEDY}"
            )
