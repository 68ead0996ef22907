"""How many requests a second are sampled at most."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Bucket"]


class Bucket:
    """A bucket of tokens, full at first: at most `rate` at once (or one), and `rate` a second after that.

    now: seconds of a clock that never goes back. Without a lock: the event loop's thread alone takes from it,
    and a fork cannot leave it locked.
    """

    __slots__ = ("_full", "_now", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._full = max(1.0, rate)
        self._now = now
        self._tokens = self._full
        self._then = now()

    def take(self) -> bool:
        """Whether there was a token; it is gone then."""
        now = self._now()
        self._tokens = min(self._full, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
