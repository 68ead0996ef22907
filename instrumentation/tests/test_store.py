"""The store: which cells are whose, that no write is lost between threads, that a fork goes on by itself."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.metrics.children import CounterChild, HistogramChild
from taskscope.metrics.store import Exemplar, MemoryStore, Series, width

COUNT = Metric(name="shop.visits", kind=Kind.COUNTER, unit="{visit}", help="Visits.", owner="shop")
WAIT = Metric(
    name="shop.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time in the queue.",
    owner="shop",
    labels=(Label("queue", cap=5, bounded_by="the queues"),),
)
BOUNDS = (0.1, 0.5, 1.0)
THREADS = 8
WRITES = 20_000


def _fail(component: str, error: BaseException | None) -> None:
    raise AssertionError((component, error))


def _counter(store: MemoryStore) -> CounterChild:
    base = store.allocate(Series(COUNT))
    assert base is not None
    return CounterChild(store, base, (), _fail)


def _histogram(store: MemoryStore) -> HistogramChild:
    base = store.allocate(Series(WAIT, ("fast",), BOUNDS))
    assert base is not None
    return HistogramChild(store, base, BOUNDS, _fail)


def test_a_counter_is_one_cell_and_a_histogram_its_buckets_one_above_them_and_the_sum() -> None:
    assert (width(Series(COUNT)), width(Series(WAIT, ("fast",), BOUNDS))) == (1, 5)


def test_a_histograms_cells_are_counts_of_each_bucket_alone_and_the_sum() -> None:
    store = MemoryStore()
    child = _histogram(store)
    for seconds in (0.1, 0.2, 0.3, 7.0):
        child.observe(seconds)
    (reading,) = store.readings()
    assert list(reading.cells) == [1, 2, 0, 1, pytest.approx(7.6)]


def test_readings_come_in_the_order_of_allocation_each_with_its_own_cells() -> None:
    store = MemoryStore()
    first, second = _counter(store), _histogram(store)
    first.inc(3)
    second.observe(2)
    read = [(reading.series.metric, list(reading.cells)) for reading in store.readings()]
    assert read == [(COUNT, [3]), (WAIT, [0, 0, 0, 1, 2])]


def test_a_reading_stays_as_it_was_when_the_store_goes_on() -> None:
    store = MemoryStore()
    child = _counter(store)
    (reading,) = store.readings()
    child.inc()
    assert list(reading.cells) == [0]


def test_an_exemplar_is_with_its_own_series_by_the_cell_within_it() -> None:
    store = MemoryStore()
    _counter(store)
    exemplar = Exemplar("a" * 32, "b" * 16, 0.2, 1.0)
    _histogram(store).observe(0.2, exemplar)
    count, wait = store.readings()
    assert (dict(count.exemplars), dict(wait.exemplars)) == ({}, {1: exemplar})


def test_no_count_and_no_observation_of_eight_threads_is_lost() -> None:
    store = MemoryStore()
    counter, histogram = _counter(store), _histogram(store)
    start = threading.Barrier(THREADS)

    def write(number: int) -> None:
        start.wait()
        for _ in range(WRITES):
            counter.inc()
            histogram.observe(0.25)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(THREADS)))
    count, wait = (list(reading.cells) for reading in store.readings())
    total = THREADS * WRITES
    assert (count, wait) == ([total], [0, total, 0, 0, total / 4])


def test_series_that_come_while_others_are_written_take_nothing_from_them() -> None:
    store = MemoryStore()
    counter = _counter(store)
    start = threading.Barrier(2)

    def grow() -> None:
        start.wait()
        for _ in range(2_000):
            with store.lock:
                store.allocate(Series(WAIT, ("fast",), BOUNDS))

    grower = threading.Thread(target=grow)
    grower.start()
    start.wait()
    for _ in range(WRITES):
        counter.inc()
    grower.join()
    assert next(iter(store.readings())).cells[0] == WRITES


def test_code_that_the_garbage_collector_runs_within_a_write_may_count_too() -> None:
    store = MemoryStore()
    counter = _counter(store)

    def told(phase: str, info: dict[str, int]) -> None:
        counter.inc()

    gc.callbacks.append(told)
    try:
        with store.lock:  # where this would wait for itself
            gc.collect()
    finally:
        gc.callbacks.remove(told)
    assert next(iter(store.readings())).cells[0] >= 2


def test_a_child_that_is_forked_while_a_thread_writes_counts_on_by_itself() -> None:
    store = MemoryStore()
    counter = _counter(store)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            with store.lock:
                done.wait(0.001)  # nearly always held, as by a very busy thread

    writer = threading.Thread(target=write)
    writer.start()
    try:
        codes = [_exit_code_of_a_child(counter) for _ in range(40)]
    finally:
        done.set()
        writer.join()
    assert codes == [0] * 40


def _exit_code_of_a_child(counter: CounterChild) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of what is tested
        pid = os.fork()
    if pid == 0:
        taken = counter.store.lock.__enter__()  # a plain lock would be waited for, for ever
        counter.inc()
        os._exit(0 if taken else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
