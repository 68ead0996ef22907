"""What goes on beside the requests of a spool's process: the thread that syncs, and forks."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import Final, Protocol

__all__ = ["Forkable", "Tended", "begin_again_in_children", "start_tending"]


class Tended(Protocol):
    """What the thread looks after."""

    def tend(self) -> None: ...


class Forkable(Protocol):
    """What a child must not use as its parent did."""

    def before_fork(self) -> None: ...

    def in_parent(self) -> None: ...

    def in_child(self) -> None: ...


def start_tending(
    tended: Tended, *, every_s: float, wake: threading.Event
) -> threading.Thread | None:
    """The thread that tends until `wake` is set, and once more then; None where no thread can start any more, as
    while the interpreter shuts down."""
    thread = threading.Thread(
        target=_tend,
        args=(weakref.ref(tended), wake, every_s),
        name="taskscope-spool-sync",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def _tend(reference: weakref.ref[Tended], wake: threading.Event, every_s: float) -> None:
    ended = False
    while not ended:
        ended = wake.wait(every_s)
        tended = reference()
        if tended is None:
            return
        # Whatever failed, such as for want of memory: the next turn may do, and nobody else would sync.
        with contextlib.suppress(Exception):
            tended.tend()
        del tended


class _Forks:
    """All that must begin again in a child. The interpreter's hooks cannot be taken back, so there is one set."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._forking: list[Forkable] = []
        os.register_at_fork(
            before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
        )

    def add(self, forkable: Forkable) -> None:
        self._all.add(forkable)

    def _before(self) -> None:
        for each in list(self._all):
            each.before_fork()
            self._forking.append(each)

    def _in_parent(self) -> None:
        while self._forking:
            self._forking.pop().in_parent()

    def _in_child(self) -> None:
        while self._forking:
            # One that fails must not leave the others with the locks of a parent's threads.
            with contextlib.suppress(Exception):
                self._forking.pop().in_child()


_FORKS: Final = _Forks()


def begin_again_in_children(forkable: Forkable) -> None:
    """In each child of this process it is as new, for as long as it lives."""
    _FORKS.add(forkable)
