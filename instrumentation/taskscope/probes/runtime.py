"""How the process itself is doing: the event loop's lag, the garbage collector's pauses, its threads.

Started and stopped with the application's lifespan. Without one nothing beats: lag and pauses stay at 0, threads
are read at the scrape all the same.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Final

from taskscope.catalogue.builtin import EVENT_LOOP_LAG, GC_PAUSE, THREADS
from taskscope.metrics.instruments import Instruments

__all__ = ["MAX_PAUSES", "Pulse", "thread_count"]

MAX_PAUSES: Final = 1_024
"""The most pauses of one generation that wait for the next beat; beyond, the oldest are forgotten."""

_REFRESH_S: Final = 1.0
_OLDEST: Final = 2
_STAT: Final = Path("/proc/self/stat")
_THREADS_FIELD: Final = 17  # `num_threads`, counted from behind the name, which may hold anything


def thread_count() -> float:
    """The threads of this process, those of extensions too; where there is no /proc, Python's own."""
    try:
        return float(_STAT.read_bytes().rpartition(b")")[2].split()[_THREADS_FIELD])
    except OSError:
        return float(threading.active_count())


class Pulse:
    """A beat on the event loop, `interval_s` apart: how late each one comes is the loop's lag.

    Ten beats and one refresh of the followed gauges a second take less than a thousandth of a core. A block of
    the loop that is shorter than `interval_s` may fall between two beats; one longer is always seen, and told
    at most `interval_s` too short. refresh: whether followed gauges are read once a second on the loop, which
    only workers need whose gauges others expose; a scrape of one's own reads them itself. clock: seconds,
    monotonic.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        interval_s: float = 0.1,
        refresh: bool = True,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._instruments = instruments
        self._interval_s = interval_s
        self._refresh = refresh
        self._clock = clock
        self._lag = instruments.histogram(EVENT_LOOP_LAG).at(())
        self._pauses = _Pauses(instruments, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._refresh_due = 0.0
        instruments.gauge(THREADS).follow(thread_count)

    def start(self) -> None:
        """The running loop is measured from now on, and no other; a second call changes nothing. Never raises."""
        try:
            loop = asyncio.get_running_loop()
            if self._next is not None and self._loop is loop:
                return
            self.stop()
            self._loop = loop
            self._refresh_due = self._clock()
            self._pauses.listen()
            self._schedule(loop)
        except Exception as error:  # noqa: BLE001 - a probe never fails the service's start
            self._instruments.failed("probes", error)

    def stop(self) -> None:
        """Nothing is measured any more, and the collector calls nothing of ours. Never raises."""
        try:
            if self._next is not None:
                self._next.cancel()
            self._next = self._loop = None
            self._pauses.close()
        except Exception as error:  # noqa: BLE001 - a probe never fails the service's end
            self._instruments.failed("probes", error)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = self._clock() + self._interval_s
        self._next = loop.call_later(self._interval_s, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            now = self._clock()
            # A loop may wake a timer up to its clock's resolution too early.
            self._lag.observe(max(0.0, now - self._due))
            self._pauses.drain()
            if self._refresh and now >= self._refresh_due:
                self._refresh_due = now + _REFRESH_S
                self._instruments.refresh()
        except Exception as error:  # noqa: BLE001 - one bad beat is not the last one
            self._instruments.failed("probes", error)
        if self._loop is loop:
            self._schedule(loop)


class _Pauses:
    """The collector's runs, noted where they happen and counted later.

    The collector may start at any allocation, so also in a thread that just holds the store's lock: a note that
    took it would write in the midst of another write, or wait for itself for ever. `note` takes no lock and makes
    nothing but a float.
    """

    def __init__(self, instruments: Instruments, clock: Callable[[], float]) -> None:
        pause = instruments.histogram(GC_PAUSE)
        self._children = [pause.at((str(generation),)) for generation in range(_OLDEST + 1)]
        self._waiting: list[deque[float]] = [deque(maxlen=MAX_PAUSES) for _ in self._children]
        self._clock = clock
        self._began: float | None = None

    def listen(self) -> None:
        """Each run is noted from the next one on."""
        self._began = None
        gc.callbacks.append(self.note)

    def note(self, phase: str, info: Mapping[str, int]) -> None:
        """What the collector calls at the start and at the stop of each run, in whichever thread it runs."""
        if phase == "start":
            self._began = self._clock()
        elif self._began is not None:  # we may have begun to listen in the midst of a run
            self._waiting[min(info["generation"], _OLDEST)].append(self._clock() - self._began)
            self._began = None

    def drain(self) -> None:
        """What was noted is among the series."""
        for child, waiting in zip(self._children, self._waiting, strict=True):
            while waiting:
                child.observe(waiting.popleft())

    def close(self) -> None:
        """Nothing is noted any more and nothing waits."""
        if self.note in gc.callbacks:
            gc.callbacks.remove(self.note)
        self.drain()
