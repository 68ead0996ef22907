"""Whose instruments the running code measures with, where it was given none.

Read by `decorators`, whose functions are defined before any app exists; `wiring` offers each app's instruments
here. Only weak references are kept, so an app that is dropped is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Final
from weakref import ref

from taskscope.catalogue import Metric
from taskscope.context import current_request
from taskscope.metrics.instruments import Instruments

__all__ = ["instruments_for", "offer", "only", "using", "withdraw"]

_chosen: Final[ContextVar[Instruments | None]] = ContextVar("taskscope_instruments", default=None)


class _Offered:
    """The instruments of this process's apps; `refs` is replaced as a whole, so it is read without the lock."""

    def __init__(self) -> None:
        # Reentrant: a reference may die, and be removed, while the lock is held by the same thread.
        self._lock = RLock()
        self.refs: tuple[ref[Instruments], ...] = ()

    def add(self, instruments: Instruments) -> None:
        with self._lock:
            if all(known() is not instruments for known in self.refs):
                self.refs = (*self.refs, ref(instruments, self._forget))

    def remove(self, instruments: Instruments) -> None:
        with self._lock:
            self.refs = tuple([known for known in self.refs if known() is not instruments])

    def set_aside(self, instruments: Instruments) -> tuple[ref[Instruments], ...]:
        with self._lock:
            aside, self.refs = self.refs, (ref(instruments, self._forget),)
        return aside

    def bring_back(self, aside: tuple[ref[Instruments], ...], instruments: Instruments) -> None:
        with self._lock:
            known = [instruments, *[each() for each in aside]]
            new = [each for each in self.refs if each() not in known]
            self.refs = tuple([each for each in (*aside, *new) if each() is not None])

    def _forget(self, dead: ref[Instruments]) -> None:
        with self._lock:
            self.refs = tuple([known for known in self.refs if known is not dead])


_offered: Final = _Offered()


def offer(instruments: Instruments) -> None:
    """Code outside of requests may measure with these from now on; offering them twice changes nothing."""
    _offered.add(instruments)


def withdraw(instruments: Instruments) -> None:
    """Code outside of requests does not find these any more."""
    _offered.remove(instruments)


@contextmanager
def only(instruments: Instruments) -> Iterator[None]:
    """Inside the block these are the only ones offered, to all tasks and threads; made for tests."""
    aside = _offered.set_aside(instruments)
    try:
        yield
    finally:
        _offered.bring_back(aside, instruments)


@contextmanager
def using(instruments: Instruments) -> Iterator[None]:
    """Inside the block, and in the tasks it starts, these are found even within requests; made for tests."""
    token = _chosen.set(instruments)
    try:
        yield
    finally:
        _chosen.reset(token)


def instruments_for(metric: Metric) -> Instruments | None:
    """Those chosen by `using`, else the current request's, else the only ones offered that declare `metric`."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    request = current_request.get()
    if request is not None and isinstance(request.instruments, Instruments):
        return request.instruments
    refs = _offered.refs
    if len(refs) == 1:
        return refs[0]()
    found = [instruments for known in refs if (instruments := known()) is not None]
    declaring = [each for each in found if metric in each.catalogue.all_metrics]
    return declaring[0] if len(declaring) == 1 else None
