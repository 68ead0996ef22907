"""The pulse: lag, pauses and threads of the process as they really are."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.builtin import EVENT_LOOP_LAG, GC_PAUSE, LIBRARY_ERRORS, THREADS
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.store import MemoryStore
from taskscope.probes import runtime
from taskscope.probes.runtime import MAX_PAUSES, Pulse, thread_count
from taskscope.testing.metrics import isolated, value
from taskscope.testing.waiting import until_async

FOLLOWED = Metric(
    name="test.followed", kind=Kind.GAUGE, unit="{thing}", help="Followed.", owner="test"
)
GENERATION = "cpython_gc_generation"


@pytest.fixture
def instruments() -> Instruments:
    return isolated(FOLLOWED)


@pytest.fixture(autouse=True)
def no_callback_is_left() -> Iterator[None]:
    before = list(gc.callbacks)
    yield
    assert gc.callbacks == before


def beats(instruments: Instruments) -> float:
    return value(instruments.registry, EVENT_LOOP_LAG)


def blocked_longer_than(instruments: Instruments, seconds: str) -> float:
    below = value(instruments.registry, EVENT_LOOP_LAG, part="bucket", le=seconds)
    return beats(instruments) - below


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def a_loop_that_only_plans() -> Any:
    return SimpleNamespace(call_later=lambda *_: SimpleNamespace(cancel=lambda: None))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_that_is_blocked_for_a_fifth_of_a_second_shows(
    new_loop: Callable[[], asyncio.AbstractEventLoop], instruments: Instruments
) -> None:
    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.05)
        pulse.start()
        await until_async(lambda: beats(instruments) >= 2, within_s=10)
        busy(0.2)
        await until_async(lambda: blocked_longer_than(instruments, "0.1") >= 1, within_s=10)
        pulse.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())

    assert value(instruments.registry, EVENT_LOOP_LAG, part="sum") >= 0.14


def test_a_beat_that_comes_early_has_no_lag_and_one_that_comes_late_has_it(
    instruments: Instruments,
) -> None:
    times = iter([0.0, 0.0, 0.0999, 0.1, 0.7, 0.7])

    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.1, clock=lambda: next(times))
        loop = a_loop_that_only_plans()
        pulse._loop = loop
        pulse._schedule(loop)
        pulse._beat(loop)
        pulse._beat(loop)
        pulse.stop()

    next(times)
    asyncio.run(run())

    assert value(instruments.registry, EVENT_LOOP_LAG, part="bucket", le="0.001") == 1
    assert value(instruments.registry, EVENT_LOOP_LAG, part="sum") == pytest.approx(0.5)


def test_a_run_of_the_collector_is_counted_by_its_generation(instruments: Instruments) -> None:
    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.01)
        pulse.start()
        gc.collect(2)
        gc.collect(1)
        await until_async(lambda: beats(instruments) >= 1, within_s=10)
        pulse.stop()

    asyncio.run(run())

    assert value(instruments.registry, GC_PAUSE, **{GENERATION: "2"}) >= 1
    assert value(instruments.registry, GC_PAUSE, **{GENERATION: "1"}) >= 1
    assert 0 < value(instruments.registry, GC_PAUSE, part="sum") < 10


def test_the_collector_may_run_in_the_thread_that_holds_the_stores_lock() -> None:
    store = MemoryStore()
    store.lock = Lock()  # type: ignore[assignment] # one that a second taking by the same thread gives away
    instruments = Instruments(Catalogue(service="test"), store=store)
    collected = Event()

    def collect_under_the_lock() -> None:
        with store.lock:
            gc.collect()
        collected.set()

    async def run() -> bool:
        pulse = Pulse(instruments, interval_s=10)
        pulse.start()
        # A daemon, so that a deadlock fails this test and does not hold the others.
        Thread(target=collect_under_the_lock, daemon=True).start()
        came_back = await asyncio.to_thread(collected.wait, 5)
        if came_back:
            pulse.stop()
        return came_back

    assert asyncio.run(run())
    assert value(instruments.registry, GC_PAUSE, **{GENERATION: "2"}) >= 1


def test_pauses_that_no_beat_fetches_are_bounded(instruments: Instruments) -> None:
    pulse = Pulse(instruments)
    for _ in range(3 * MAX_PAUSES):
        pulse._pauses.note("start", {"generation": 0})
        pulse._pauses.note("stop", {"generation": 0})
    pulse.stop()

    assert value(instruments.registry, GC_PAUSE, **{GENERATION: "0"}) == MAX_PAUSES


def test_a_run_that_was_under_way_before_we_listened_is_not_counted(
    instruments: Instruments,
) -> None:
    pulse = Pulse(instruments)
    pulse._pauses.note("stop", {"generation": 0})
    pulse.stop()

    assert value(instruments.registry, GC_PAUSE) == 0


def test_the_threads_of_the_process_are_counted_without_a_lifespan(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    Pulse(instruments)
    before = value(instruments.registry, THREADS)
    end = Event()
    threads = [Thread(target=end.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    during = value(instruments.registry, THREADS)
    monkeypatch.setattr(runtime, "_STAT", tmp_path / "none")
    without_proc = thread_count()
    end.set()
    for thread in threads:
        thread.join()

    assert during == before + 3
    assert without_proc >= 4


def test_without_a_lifespan_all_series_are_there_at_zero(instruments: Instruments) -> None:
    Pulse(instruments)

    names = {sample.name for family in instruments.registry.collect() for sample in family.samples}
    assert {f"{EVENT_LOOP_LAG.family}_count", f"{GC_PAUSE.family}_count"} <= names
    assert beats(instruments) == 0


def test_followed_gauges_reach_their_cells_once_a_second(instruments: Instruments) -> None:
    asked: list[float] = []

    def read() -> float:
        asked.append(1.0)
        return 7.0

    instruments.gauge(FOLLOWED).follow(read)

    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.005)
        pulse.start()
        await until_async(lambda: bool(asked), within_s=10)
        beats_then = beats_without_asking(instruments)
        await until_async(lambda: beats_without_asking(instruments) >= beats_then + 5, within_s=10)
        pulse.stop()

    asyncio.run(run())

    assert len(asked) <= 2


def test_where_it_is_not_wanted_no_followed_gauge_is_asked_on_the_loop(
    instruments: Instruments,
) -> None:
    asked: list[float] = []

    def read() -> float:
        asked.append(1.0)
        return 7.0

    instruments.gauge(FOLLOWED).follow(read)

    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.005, refresh=False)
        pulse.start()
        await until_async(lambda: beats_without_asking(instruments) >= 3, within_s=10)
        pulse.stop()

    asyncio.run(run())

    assert asked == []


def beats_without_asking(instruments: Instruments) -> float:
    """The number of beats, read from the cells: a scrape would ask the followed gauges itself."""
    child = instruments.histogram(EVENT_LOOP_LAG).at(())
    return sum(child.store.cells[child.base : child.base + len(child.bounds) + 1])


def test_two_apps_in_one_process_are_both_measured_and_stop_apart(
    instruments: Instruments,
) -> None:
    other = isolated()

    async def run() -> float:
        first, second = Pulse(instruments, interval_s=0.01), Pulse(other, interval_s=0.01)
        first.start()
        first.start()
        second.start()
        assert len(gc.callbacks) == callbacks + 2
        await until_async(lambda: beats(instruments) >= 1 and beats(other) >= 1, within_s=10)
        first.stop()
        stopped_at = beats(instruments)
        seen = beats(other)
        await until_async(lambda: beats(other) >= seen + 3, within_s=10)
        second.stop()
        return beats(instruments) - stopped_at

    callbacks = len(gc.callbacks)

    assert asyncio.run(run()) == 0


def test_an_app_that_starts_again_on_another_loop_is_measured_there(
    instruments: Instruments,
) -> None:
    pulse = Pulse(instruments, interval_s=0.01)

    async def run(*, stop: bool) -> None:
        before = beats(instruments)
        pulse.start()
        await until_async(lambda: beats(instruments) > before, within_s=10)
        if stop:
            pulse.stop()

    asyncio.run(run(stop=False))
    asyncio.run(run(stop=True))


def test_a_beat_that_fails_is_counted_and_not_the_last(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("planted")

    async def run() -> None:
        pulse = Pulse(instruments, interval_s=0.01)
        with monkeypatch.context() as planted:
            planted.setattr(instruments, "refresh", broken)
            pulse.start()
            await until_async(lambda: beats_without_asking(instruments) >= 3, within_s=10)
            pulse.stop()

    asyncio.run(run())

    assert value(instruments.registry, LIBRARY_ERRORS, component="probes") >= 1


def test_where_no_loop_runs_the_start_does_nothing_but_count(instruments: Instruments) -> None:
    Pulse(instruments).start()

    assert value(instruments.registry, LIBRARY_ERRORS, component="probes") == 1


def test_the_pulse_takes_less_than_a_thousandth_of_a_core(instruments: Instruments) -> None:
    pulse = Pulse(instruments, interval_s=0.1)
    loop = a_loop_that_only_plans()
    pulse._loop = loop
    rounds = 200
    began = time.process_time()
    for _ in range(rounds):
        pulse._beat(loop)
    beat_s = (time.process_time() - began) / rounds
    began = time.process_time()
    for _ in range(rounds):
        instruments.refresh()
    refresh_s = (time.process_time() - began) / rounds
    pulse.stop()

    assert 10 * beat_s + refresh_s < 0.001
