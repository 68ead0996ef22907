"""What a pipeline does beside its lines, in a thread of its own, once a second: never on the path of a request.

It follows a change of level, says what was left out, and mends what a server or a library has set up over us. A
signal asks it for DEBUG; it is only told, for a signal handler may run in the midst of anything.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

__all__ = ["EVERY_S", "Keeper", "is_ours", "on_signal"]

EVERY_S: Final = 1.0
"""Seconds between two rounds."""

_JOIN_S: Final = 2.0


class Keeper:
    """Calls `round` every second, and what it is asked for at once, from the first `start` to `close`.

    A forked child has none until its own `start`. failed: told of what a round raised. Both are bound methods.
    """

    def __init__(
        self, round_: Callable[[], None], *, failed: Callable[[BaseException], None]
    ) -> None:
        self._round = round_
        self._failed = failed
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def start(self) -> None:
        """The rounds go on in this process; a second call does nothing. Never raises."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._queue = SimpleQueue()
        # It must not keep a pipeline alive that everybody else has let go.
        weak = weakref.WeakMethod(self._round), weakref.WeakMethod(self._failed)
        self._thread = threading.Thread(
            target=_run, args=(*weak, self._queue), name="taskscope-logs", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started any more
            self._thread = None

    def ask(self, work: Callable[[], object]) -> None:
        """The work is done soon, in the keeper's thread. Safe in signal handlers."""
        self._queue.put(work)

    def close(self) -> None:
        """No round begins any more, and none is under way."""
        thread, self._thread = self._thread, None
        mine, self._pid = self._pid == os.getpid(), 0
        if thread is None or not mine:
            return
        self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(_JOIN_S)


def _run(
    owner: weakref.WeakMethod[Callable[[], None]],
    failed: weakref.WeakMethod[Callable[[BaseException], None]],
    queue: SimpleQueue[Callable[[], object] | None],
) -> None:
    while True:
        work: Callable[[], object] | None
        try:
            work = queue.get(timeout=EVERY_S)
            if work is None:
                return
        except Empty:
            work = owner()
            if work is None:
                return
        try:
            work()
        except Exception as error:  # noqa: BLE001 # one bad round is not the last one
            told = failed()
            if told is not None:
                told(error)
            del told
        del work


def is_ours(name: str) -> bool:
    """Whether a handler of ours stands at the signal."""
    number = getattr(signal, name, None)
    return number is not None and isinstance(signal.getsignal(number), _Handler)


def on_signal(name: str, told: Callable[[], None]) -> Callable[[], None] | None:
    """The signal calls `told`, unless the service has a handler of its own for it. Gives what takes that back.

    Only the main thread may say so; None if nothing was done. name: of the signal, or `none`.
    """
    number = getattr(signal, name, None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return None
    if signal.getsignal(number) is not signal.SIG_DFL and not is_ours(name):
        return None
    handler = _Handler(told)

    signal.signal(number, handler)

    def undo() -> None:
        if signal.getsignal(number) is handler:
            with suppress(ValueError):  # closed by another thread than the main one
                signal.signal(number, signal.SIG_DFL)

    return undo


class _Handler:
    """A signal's handler that is known as ours."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def __call__(self, _number: int, _frame: object) -> None:
        self._told()
