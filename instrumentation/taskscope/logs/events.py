"""Each kind of event that is logged: what its lines have in common, and how many a second there may be.

An event is a logger, a level and a message before its arguments are filled in. One that runs wild costs what its
bound allows, whatever its code does; what was left out is counted, and a line says how much of what.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Final

__all__ = ["MOST_EVENTS", "Event", "Events", "Suppressed"]

MOST_EVENTS: Final = 1024
"""The most events that are told apart; beyond, all new ones share one bound."""

_OTHERS: Final = "[other events]"


class Event:
    """One event. head: what its lines have in common, None where the encoder must write them.

    left: lines that may be written before the clock is asked. suppressed: lines left out since it was last said.
    """

    __slots__ = ("head", "left", "level", "logger", "name", "since", "suppressed")

    def __init__(self, level: str, logger: str, name: str, *, left: float, since: float) -> None:
        self.level = level
        self.logger = logger
        self.name = name
        self.head: bytes | None = None
        self.left = left
        self.since = since
        self.suppressed = 0


class Suppressed:
    """How many lines of an event were left out since it was last said."""

    __slots__ = ("level", "lines", "logger", "name")

    def __init__(self, event: Event, lines: int) -> None:
        self.level = event.level
        self.logger = event.logger
        self.name = event.name
        self.lines = lines


class Events:
    """Every event of one pipeline. Safe for threads: a race lets a line more through, or one less.

    per_second: lines of one event that are written in the long run; 0 for no bound. burst: the most at once.
    head: makes an event's head. met: called when a new event is met. monotonic: seconds of a steady clock.
    """

    def __init__(
        self,
        *,
        per_second: float,
        burst: int,
        head: Callable[[str, str, str], bytes | None],
        met: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._per_second = per_second
        # Half of it is had at once, and the other half when that is gone: so the clock is asked once in so many lines.
        self._share = max(1.0, burst / 2)
        self._head = head
        self._met = met
        self._monotonic = monotonic
        self._lock = RLock()
        self.known: dict[tuple[str, str, str], Event] = {}
        self._limited: dict[tuple[str, str, str], Event] = {}
        self._others = self._new(("warning", "", _OTHERS))

    def allowed(self, level: str, logger: str, name: str) -> Event | None:
        """The event, one line of which may be written now; None if it was left out, and counted."""
        event = self.known.get((level, logger, name)) or self.meet((level, logger, name))
        event.left -= 1.0
        return event if event.left >= 0.0 or self.refilled(event) else None

    def refilled(self, event: Event) -> bool:
        """Whether time has passed in which an event that had no line left has gained one."""
        if self._per_second <= 0:
            event.left = self._share
            return True
        now = self._monotonic()
        gained = min(self._share, (now - event.since) * self._per_second)
        if gained < 1.0:
            event.left = 0.0
            event.suppressed += 1
            self._limited[event.level, event.logger, event.name] = event
            return False
        event.since = now
        event.left = gained - 1.0
        return True

    def meet(self, key: tuple[str, str, str]) -> Event:
        """The event of that key, which is known from now on."""
        self._met()
        with self._lock:
            if len(self.known) >= MOST_EVENTS:
                # Those whose lines are left out go on to be told apart; the others begin anew.
                self.known = dict(self._limited)
                if len(self.known) >= MOST_EVENTS:
                    return self._others
            event = self._new(key)
            event.head = self._head(*key)
            self.known[key] = event
        return event

    def said(self) -> list[Suppressed]:
        """What was left out since the last time, which is told once."""
        with self._lock:
            limited, self._limited = self._limited, {}
        found = []
        for event in limited.values():
            lines, event.suppressed = event.suppressed, 0
            if lines:
                found.append(Suppressed(event, lines))
        return found

    def forget(self) -> None:
        """No event is known any more, nor what was left out: in a forked child that is its parent's."""
        self._lock = RLock()
        self.known = {}
        self._limited = {}

    def _new(self, key: tuple[str, str, str]) -> Event:
        return Event(*key, left=self._share, since=self._monotonic())
