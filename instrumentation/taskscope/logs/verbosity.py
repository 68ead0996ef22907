"""How much is logged: the settings' level and sample, or what somebody asked for, until its time is over.

Asked in one worker, followed by all of them: each looks at the folder's file at most once a second, off the path of
requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final

from taskscope.errors import SettingsError
from taskscope.logs.change import LONGEST_S, Change, looked_at, read, write

__all__ = ["DEFAULT_S", "State", "Verbosity"]

DEFAULT_S: Final = 600.0
"""How long a change holds, if nobody said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What holds now. seconds_left: until the settings hold again; None if they do. by: who asked, or nobody."""

    level: str
    sample: float
    seconds_left: float | None = None
    by: str = ""


class Verbosity:
    """The level and the sample of one pipeline. Safe for threads; `toggled` also for signal handlers.

    level, sample: the settings'. apply: called with those that hold from now on. tell: called with each state that
    begins, for a line of its own. now: seconds since 1970. monotonic: seconds of a steady clock, by which a change
    ends, so a clock that is set does not make it last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        level: str,
        sample: float,
        apply: Callable[[str, float], None],
        tell: Callable[[State, float | None], None],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._settings = State(level=level, sample=sample)
        self._apply = apply
        self._tell = tell
        self._now = now
        self._monotonic = monotonic
        self._lock = RLock()
        self._change: Change | None = None
        self._ends = 0.0
        self._seen = (0, 0, 0)
        self.asked: Callable[[State, str], None] | None = None
        """Called with what was asked for in this process, and by whom; not where another worker was asked."""

    def state(self) -> State:
        """What holds now."""
        with self._lock:
            if self._change is None:
                return self._settings
            left = max(0.0, self._ends - self._monotonic())
            return State(
                level=self._change.level,
                sample=self._change.sample,
                seconds_left=round(left, 1),
                by=self._change.by,
            )

    def ask(
        self,
        *,
        level: str | None = None,
        sample: float | None = None,
        for_s: float = DEFAULT_S,
        by: str,
    ) -> State:
        """The level and the sample hold in all workers of the folder for that long; what is None stays as it is set.

        Raises SettingsError for what cannot hold, or if the folder cannot be written.
        """
        change = Change(
            level=self._settings.level if level is None else level.upper(),
            sample=self._settings.sample if sample is None else float(sample),
            until=self._now() + for_s,
            by=by,
        )
        fault = change.fault()
        if not fault and not 0 < for_s <= LONGEST_S:
            fault = f"for_s: {for_s} is too long or no time; take at most {LONGEST_S:.0f} seconds"
        if fault:
            raise SettingsError(fault)
        self._publish(change, for_s)
        return self._told(by)

    def back(self, *, by: str) -> State:
        """The settings hold again in all workers. Raises SettingsError if the folder cannot be written."""
        settings = self._settings
        self._publish(Change(level=settings.level, sample=settings.sample, until=0.0, by=by), 0.0)
        return self._told(by)

    def toggled(self, *, by: str) -> State:
        """DEBUG for ten minutes, or the settings again if something else holds. Raises as `ask`."""
        if self._change is not None:
            return self.back(by=by)
        return self.ask(level="DEBUG", sample=1.0, by=by)

    def look(self) -> None:
        """What another worker was asked for holds here too, and what is over is over."""
        mark = looked_at(self._folder)
        with self._lock:
            if mark != self._seen:
                self._seen = mark
                change = read(self._folder)
                if change is not None:
                    # A clock that is set back must not make it last.
                    left = min(change.until - self._now(), LONGEST_S)
                    self._follow(change if left > 0 else None, left)
            if self._change is not None and self._monotonic() >= self._ends:
                self._follow(None, 0.0)

    def _told(self, by: str) -> State:
        state = self.state()
        if self.asked is not None:
            self.asked(state, by)
        return state

    def _publish(self, change: Change, for_s: float) -> None:
        with self._lock:
            try:
                write(self._folder, change)
            except OSError as error:
                raise SettingsError(
                    f"spool {self._folder} cannot be written: {error.strerror}; free it, the level stays as it is"
                ) from error
            self._seen = looked_at(self._folder)
            self._follow(change if for_s > 0 else None, for_s)

    def _follow(self, change: Change | None, for_s: float) -> None:
        if change is None and self._change is None:
            return
        self._change = change
        self._ends = self._monotonic() + for_s
        state = self.state()
        self._apply(state.level, state.sample)
        self._tell(state, for_s if change is not None else None)
