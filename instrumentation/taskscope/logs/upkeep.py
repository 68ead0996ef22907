"""What a pipeline does beside its lines: it follows changes of level, says what was left out, mends its routes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from taskscope.errors import SettingsError
from taskscope.logs.keeper import Keeper, is_ours, on_signal
from taskscope.logs.verbosity import State, Verbosity

if TYPE_CHECKING:
    from taskscope.logs.pipeline import LogPipeline

__all__ = ["WINDOW_S", "Upkeep"]

WINDOW_S: Final = 10.0
"""Seconds after which a line says how many of an event were left out."""

_LOGGER: Final = "taskscope.logs"


class Upkeep:
    """The upkeep of one pipeline, in a thread of its own from the first line on, and in each forked child anew.

    level, share: the settings' level and share of access lines, which hold unless somebody asks for others.
    signal: the name of the one that asks for DEBUG, or `none`.
    now: seconds since 1970. monotonic: seconds of a steady clock.
    """

    def __init__(
        self,
        pipeline: LogPipeline,
        *,
        level: str,
        share: float,
        signal: str = "none",
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline = pipeline
        self._monotonic = monotonic
        self._said = monotonic()
        self._keeper = Keeper(self.round, failed=self._failed)
        self._signal = signal
        self._unsignal: Callable[[], None] | None = None
        self.verbosity = Verbosity(
            pipeline.spool.folder,
            level=level,
            sample=share,
            apply=self._apply,
            tell=self._tell,
            now=now,
            monotonic=monotonic,
        )

    def start(self) -> None:
        """The rounds go on in this process. Never raises."""
        self._keeper.start()

    def listen(self) -> None:
        """The signal asks for DEBUG, or for the settings again; so it does after a server has reset all signals.

        Only the main thread can say so, and no handler of the service is replaced.
        """
        if self._unsignal is None or not is_ours(self._signal):
            self._unsignal = on_signal(self._signal, self._told) or self._unsignal

    def round(self) -> None:
        """One round: what others were asked for holds here, what was left out is said, the routes lead here."""
        self.verbosity.look()
        for route in self._pipeline.routes:
            route.mend()
        if self._monotonic() - self._said >= WINDOW_S:
            self.say_left_out()

    def say_left_out(self) -> None:
        """A line for each event whose lines were left out since it was last said."""
        now = self._monotonic()
        seconds, self._said = round(now - self._said, 1), now
        for each in self._pipeline.events.said():
            event = {
                "event": "lines suppressed",
                "suppressed": each.lines,
                "suppressed_event": each.name,
                "suppressed_logger": each.logger,
                "window_s": seconds,
            }
            self._pipeline.emit(event, level=each.level, logger=_LOGGER)

    def close(self) -> None:
        """No round is under way, what was left out is said, and the signal does what it did before."""
        if self._unsignal is not None:
            self._unsignal()
            self._unsignal = None
        self._keeper.close()
        self.say_left_out()

    def _told(self) -> None:
        if self._unsignal is not None:
            self._keeper.start()
            self._keeper.ask(self._toggle)

    def _toggle(self) -> None:
        try:
            self.verbosity.toggled(by="signal")
        except SettingsError as error:
            self._pipeline.emit(
                {"event": "logging cannot be changed", "reason": str(error)},
                level="error",
                logger=_LOGGER,
            )

    def _apply(self, level: str, share: float) -> None:
        pipeline = self._pipeline
        pipeline.level = logging.getLevelNamesMapping()[level]
        pipeline.sample.take(share)
        for route in pipeline.routes:
            route.follow(pipeline.level)

    def _tell(self, state: State, for_s: float | None) -> None:
        event: dict[str, object] = {"event": "logging is as it is set again"}
        if for_s is not None:
            event = {"event": "logging changed", "for_s": round(for_s, 1), "asked_by": state.by}
        event |= {"least_level": state.level, "access_sample": state.sample}
        # Whatever the level is: who reads the lines must know why there are more or fewer.
        self._pipeline.emit(event, level="warning", logger=_LOGGER)

    def _failed(self, error: BaseException) -> None:
        self._pipeline.failed(error)
