"""What goes on beside the requests of a spool's process: the thread that syncs, and forks."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import Protocol

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


def begin_again_in_children(forkable: Forkable) -> None:
    """In each child of this process it is as new; it may be dropped before."""
    # Hooks cannot be taken back; a weak reference lets what is dropped go.
    reference = weakref.ref(forkable)
    forking: list[Forkable] = []

    def before() -> None:
        found = reference()
        if found is not None:
            found.before_fork()
            forking.append(found)

    def in_parent() -> None:
        if forking:
            forking.pop().in_parent()

    def in_child() -> None:
        if forking:
            forking.pop().in_child()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
