"""Ids of traces and spans: random, from blocks of the system's generator, never the same after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakMethod

__all__ = ["Ids"]

_TRACE: Final = 32
_PAIR: Final = 48
_BLOCK: Final = 256
_NONE: Final = "0" * 16


class Ids:
    """A pool of pairs of ids as text: 32 hexadecimal digits of a trace, 16 of a span.

    Threads may take from it at once: no two get the same. random: gives so many random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._pairs: list[str] = []
        forget = WeakMethod(self.forget)
        os.register_at_fork(after_in_child=lambda: _call(forget))

    def pair(self) -> str:
        """48 hexadecimal digits that were given to nobody else: a trace's 32, then a span's 16."""
        # One thread's refill may be emptied by others before it takes its own.
        while True:
            try:
                return self._pairs.pop()
            except IndexError:
                self._refill()

    def trace_id(self) -> int:
        """A trace's id, not zero."""
        return int(self.pair()[:_TRACE], 16)

    def span_id(self) -> int:
        """A span's id, not zero."""
        return int(self.pair()[_TRACE:], 16)

    def forget(self) -> None:
        """What was drawn before is given to nobody: the parent process has it too."""
        self._pairs = []

    def _refill(self) -> None:
        digits = self._random(_BLOCK * _PAIR // 2).hex()
        pairs = [digits[at : at + _PAIR] for at in range(0, len(digits), _PAIR)]
        if _NONE in digits:  # ids of nothing but zeros mean "none"
            pairs = [each for each in pairs if _NONE * 2 not in each and each[_TRACE:] != _NONE]
        self._pairs.extend(pairs)


def _call(method: WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()
