"""What would be said again and again is said once a minute, with how often it happened.

Used wherever the library tells of its own errors: a fault in each of a thousand requests a second must not
become a thousand lines a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Final

__all__ = ["MOST_KINDS", "QUIET_S", "OncePerMinute"]

QUIET_S: Final = 60.0
"""Seconds between two times that one kind is said."""
MOST_KINDS: Final = 256
"""The most kinds of one minute that are told apart; all further ones share one turn."""


class OncePerMinute:
    """Decides whether a kind of event is said now. Safe for threads; monotonic: seconds of a steady clock."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kinds: dict[Hashable, tuple[float, int]] = {}
        # Its own thread may take it again: a finaliser or a signal handler may fail while a count is taken.
        self._lock = RLock()
        self._tidied = monotonic()

    def turn(self, kind: Hashable) -> int:
        """How often `kind` happened since it was last said, this time included; 0 if it is not said now."""
        now = self._monotonic()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
                self._forget_old(now)
                if len(self._kinds) >= MOST_KINDS:
                    kind = None
            said, unsaid = self._kinds.get(kind, (now - QUIET_S, 0))
            if now - said < QUIET_S:
                self._kinds[kind] = (said, unsaid + 1)
                return 0
            self._kinds[kind] = (now, 0)
            return unsaid + 1

    def _forget_old(self, now: float) -> None:
        if now - self._tidied < QUIET_S:
            return
        self._tidied = now
        recent = [each for each in self._kinds.items() if now - each[1][0] < QUIET_S]
        self._kinds = dict(recent)
