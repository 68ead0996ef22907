"""How often a client may ask, and how often an account's password may be wrong.

The counts are this instance's own; `limits` can put them into a shared store later without a change here.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

__all__ = ["BoundedMemory", "Limiter", "Verdict"]

MOST_KEYS: Final = 50_000
"""Clients, or accounts, that are remembered at once: some 10 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a limit says of one request. after_s: whole seconds until the window ends."""

    admitted: bool
    limit: int
    remaining: int
    after_s: int

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told, Retry-After only when refused."""
        told = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.after_s),
        }
        return told if self.admitted else {**told, "Retry-After": str(self.after_s)}


class BoundedMemory(Storage):
    """Counts of fixed windows in this process, by a clock that no one sets back.

    `limits` brings a memory store, but that one grows with every address seen in a window and walks all of
    them at each request. Here the window that began first is forgotten when the store is full.
    """

    STORAGE_SCHEME = None

    def __init__(
        self, *, most_keys: int = MOST_KEYS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most_keys = most_keys
        self._clock = clock
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What a failing store would raise; this one does not fail."""
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """The count after `amount` was added; a window that is over begins anew."""
        count, ends = self._window(key)
        if count == 0:
            ends = self._clock() + expiry
            self._windows.pop(key, None)
            while len(self._windows) >= self._most_keys:
                self._windows.popitem(last=False)
        self._windows[key] = (count + amount, ends)
        return count + amount

    async def get(self, key: str) -> int:
        """The count of the window that runs, or 0."""
        return self._window(key)[0]

    async def get_expiry(self, key: str) -> float:
        """When the window ends, by this store's clock."""
        return self._window(key)[1]

    async def check(self) -> bool:
        """A store in memory is always there."""
        return True

    async def reset(self) -> int | None:
        """How many windows were forgotten: all."""
        forgotten = len(self._windows)
        self._windows.clear()
        return forgotten

    async def clear(self, key: str) -> None:
        """The key's window is forgotten."""
        self._windows.pop(key, None)

    def now(self) -> float:
        """The store's clock."""
        return self._clock()

    def _window(self, key: str) -> tuple[int, float]:
        count, ends = self._windows.get(key, (0, 0.0))
        now = self._clock()
        return (count, ends) if count and ends > now else (0, now)


class Limiter:
    """At most `limit` of something in `window_s` seconds for each key, counted from the first."""

    def __init__(self, *, limit: int, window_s: int, store: BoundedMemory | None = None) -> None:
        self._store = store or BoundedMemory()
        self._strategy = FixedWindowRateLimiter(self._store)
        self._item = RateLimitItemPerSecond(limit, window_s)

    async def admit(self, key: str) -> Verdict:
        """The verdict after this one was counted."""
        admitted = await self._strategy.hit(self._item, key)
        stats = await self._strategy.get_window_stats(self._item, key)
        return Verdict(
            admitted=admitted,
            limit=self._item.amount,
            remaining=max(0, stats.remaining),
            after_s=max(1, math.ceil(stats.reset_time - self._store.now())),
        )

    async def forget(self, key: str) -> None:
        """The key begins anew."""
        await self._strategy.clear(self._item, key)
