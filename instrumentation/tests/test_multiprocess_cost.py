"""What many workers cost, as ratios of interleaved runs: the machine's speed is in neither side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import thread_time

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.metrics.children import HistogramChild
from taskscope.metrics.store import MemoryStore, Series, Store
from taskscope.multiprocess import WorkerFolder, WorkerStore

WAIT = Metric(
    name="shop.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Waits.",
    owner="shop",
    labels=(Label("place", cap=5_000, bounded_by="the places"),),
)
PLACES = 1_000


def filled(store: Store) -> HistogramChild:
    with store.lock:
        bases = [
            store.allocate(Series(WAIT, (str(place),), WAIT.buckets)) for place in range(PLACES)
        ]
        for base in bases:
            assert base is not None
            store.cells[base] += 1.0
    assert bases[0] is not None
    return HistogramChild(store, bases[0], WAIT.buckets, _ignore)


def _ignore(component: str, error: BaseException | None) -> None:
    raise AssertionError((component, error))


def seconds(work: Callable[[], object], times: int) -> float:
    start = thread_time()
    for _ in range(times):
        work()
    return (thread_time() - start) / times


def test_an_observation_costs_less_than_half_a_microsecond_more_than_in_memory(
    tmp_path: Path,
) -> None:
    memory, file = filled(MemoryStore()), filled(WorkerStore(tmp_path, service="shop"))
    pairs = [
        (seconds(lambda: memory.observe(0.2), 3_000), seconds(lambda: file.observe(0.2), 3_000))
        for _ in range(15)
    ]
    assert median(theirs - ours for ours, theirs in pairs) < 0.5e-6


def test_a_scrape_with_64_dead_workers_is_no_slower_than_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerStore, "_tidy", lambda _: None)
    readers, living = [], []
    for folder, dead in ((tmp_path / "none", 0), (tmp_path / "many", 64)):
        for _ in range(dead):
            store = WorkerStore(folder, service="shop")
            filled(store)
            store.close()
        living.append(filled(WorkerStore(folder, service="shop")))
        readers.append(WorkerFolder(folder, service="shop"))
        answer = readers[-1].collect()
        assert answer.workers == 1
        assert sum(sum(reading.cells[:-1]) for reading in answer.readings) == (dead + 1) * PLACES
    alone, among = readers
    pairs = [(seconds(alone.collect, 3), seconds(among.collect, 3)) for _ in range(15)]
    assert median(theirs / ours for ours, theirs in pairs) < 1.1


def test_a_hundred_restarts_leave_a_scrape_as_cheap_as_it_was(tmp_path: Path) -> None:
    live = WorkerStore(tmp_path, service="shop")
    filled(live)
    reader = WorkerFolder(tmp_path, service="shop")
    sizes = []
    for _ in range(100):
        store = WorkerStore(tmp_path, service="shop", cells=64)
        with store.lock:
            store.allocate(Series(WAIT, ("0",), WAIT.buckets))
        store.close()
        reader.collect()
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert len(set(sizes)) == 1
