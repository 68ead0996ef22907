"""Counting on the request path: one step now, and the counter itself when somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from taskscope.metrics.children import CounterChild
from taskscope.metrics.store import MemoryStore

__all__ = ["MOST_NOTED", "Readable", "counting"]

MOST_NOTED: Final = 1_024
"""So many are noted before the counter is written without anybody looking."""


class Readable(Protocol):
    """What tells before it is read; Instruments do."""

    def before_reading(self, settle: Callable[[], None]) -> None: ...


def counting(instruments: Readable, child: CounterChild) -> Callable[[], None]:
    """Called, it counts one more, from any thread.

    In the memory of this process it is a third of the counter's own price, for the counter is written at each look,
    and with every 1,024th. Where other processes read the store it is the counter itself.
    """
    if not isinstance(child.store, MemoryStore):
        return child.inc
    tally = _Tally(child)
    instruments.before_reading(tally.settle)
    return tally.count


class _Tally:
    __slots__ = ("_child", "_noted")

    def __init__(self, child: CounterChild) -> None:
        self._child = child
        self._noted: list[None] = []

    def count(self) -> None:
        self._noted.append(None)  # one step, so threads need no lock
        if len(self._noted) >= MOST_NOTED:
            self.settle()

    def settle(self) -> None:
        """What was noted is in the counter. Each entry is taken by one thread, whoever else settles."""
        taken, take = 0, self._noted.pop
        try:
            while True:
                take()
                taken += 1
        except IndexError:
            if taken:
                self._child.inc(taken)
