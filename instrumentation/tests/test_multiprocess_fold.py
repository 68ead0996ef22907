from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.metrics.store import Exemplar, Series
from taskscope.multiprocess import WorkerFolder, WorkerStore
from taskscope.multiprocess import folding as folding_module
from taskscope.multiprocess.files import open_folder, try_exclusive

COUNT = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders.",
    owner="shop",
    labels=(Label("colour", cap=100, bounded_by="the palette"),),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{cart}", help="Carts.", owner="shop")
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Waits.", owner="shop", buckets=(0.1, 1.0)
)
CALLS = 24
"""No fewer than the calls of a scrape that folds three workers; how many depends on the order of names."""


class CrashError(BaseException):
    """The process ends here."""


class Worker:
    """A worker of the model: a store, and the bases of its series."""

    def __init__(self, folder: Path) -> None:
        self.store = WorkerStore(folder, service="shop")
        self._bases: dict[Series, int] = {}

    def add(self, series: Series, amount: float = 1.0, cell: int = 0) -> None:
        with self.store.lock:
            base = self._bases.get(series)
            if base is None:
                base = self.store.allocate(series)
                assert base is not None
                self._bases[series] = base
            self.store.cells[base + cell] += amount

    def kill(self) -> None:
        # What the kernel does at SIGKILL: the descriptors go, and nothing else happens.
        self.store.close()


def cells(folder: Path) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    answer = WorkerFolder(folder, service="shop").collect()
    return {(r.series.metric.name, r.series.values): list(r.cells) for r in answer.readings}


def names(folder: Path) -> list[str]:
    return sorted(path.suffix[1:] for path in folder.iterdir())


def test_the_dead_become_one_file_and_go_on_counting(tmp_path: Path) -> None:
    for _ in range(5):
        worker = Worker(tmp_path)
        worker.add(Series(COUNT, ("red",)), 2)
        worker.add(Series(OPEN), 9)
        worker.kill()
    assert cells(tmp_path) == {("shop.orders", ("red",)): [10.0]}
    assert names(tmp_path) == ["fold"]
    assert cells(tmp_path) == {("shop.orders", ("red",)): [10.0]}


def test_a_start_folds_what_was_left_though_nobody_scrapes(tmp_path: Path) -> None:
    for _ in range(50):
        worker = Worker(tmp_path)
        worker.add(Series(COUNT, ("red",)))
        worker.kill()
    assert names(tmp_path) == ["cells", "fold"]
    assert cells(tmp_path) == {("shop.orders", ("red",)): [50.0]}


def test_exemplars_of_the_dead_are_kept(tmp_path: Path) -> None:
    exemplar = Exemplar("a" * 32, "b" * 16, 0.05, 1.0)
    worker = Worker(tmp_path)
    worker.add(Series(WAIT, (), WAIT.buckets))
    worker.store.exemplify(0, exemplar)
    worker.kill()
    for _ in range(2):
        (reading,) = WorkerFolder(tmp_path, service="shop").collect().readings
        assert reading.exemplars == {0: exemplar}


@pytest.mark.parametrize("seed", range(12))
def test_any_run_of_starts_counts_kills_and_scrapes_agrees_with_the_model(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    reader = WorkerFolder(tmp_path, service="shop")
    workers: list[Worker] = []
    counted: Counter[tuple[str, tuple[str, ...]]] = Counter()
    gauges: dict[int, float] = {}
    for _ in range(250):
        act = dice.choice(["start", "count", "count", "count", "wait", "open", "kill", "scrape"])
        worker = dice.choice(workers) if workers else None
        if act == "start" and len(workers) < 5:
            workers.append(Worker(tmp_path))
        elif act == "kill" and worker is not None:
            worker.kill()
            workers.remove(worker)
            gauges.pop(id(worker), None)
        elif act == "count" and worker is not None:
            colour = dice.choice("abcdefgh")
            worker.add(Series(COUNT, (colour,)))
            counted["shop.orders", (colour,)] += 1
        elif act == "wait" and worker is not None:
            worker.add(Series(WAIT, (), WAIT.buckets), cell=dice.randrange(3))
            counted["shop.wait", ()] += 1
        elif act == "open" and worker is not None:
            worker.add(Series(OPEN), 1)
            gauges[id(worker)] = gauges.get(id(worker), 0) + 1
        elif act == "scrape":
            answer = reader.collect()
            got = {(r.series.metric.name, r.series.values): sum(r.cells) for r in answer.readings}
            assert answer.workers == len(workers)
            assert got.pop(("shop.open", ()), None) == (sum(gauges.values()) or None)
            assert got == counted
            assert len(names(tmp_path)) <= len(workers) + 1


def plant_crash(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before its `step`-th call that opens, syncs, renames or removes a file."""
    made = 0

    def planted(call: Callable[..., object]) -> Callable[..., object]:
        def crashing(*args: object, **kwargs: object) -> object:
            nonlocal made
            made += 1
            if made >= step:
                raise CrashError
            return call(*args, **kwargs)

        return crashing

    for name in ("open", "fsync", "rename", "unlink"):
        monkeypatch.setattr(os, name, planted(getattr(os, name)))
    monkeypatch.setattr(folding_module, "_content", planted(folding_module._content))


def one_living_and_three_dead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    with monkeypatch.context() as untidy:
        untidy.setattr(WorkerStore, "_tidy", lambda _: None)
        workers = [Worker(folder) for _ in range(4)]
    for amount, worker in zip((1, 10, 100, 1000), workers, strict=True):
        worker.add(Series(COUNT, ("red",)), amount)
    for worker in workers[1:]:
        worker.kill()
    return workers[0]


@pytest.mark.parametrize("step", range(1, CALLS + 1))
def test_a_crash_at_any_step_of_the_fold_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    living = one_living_and_three_dead(tmp_path, monkeypatch)
    reader = WorkerFolder(tmp_path, service="shop")
    with monkeypatch.context() as planted:
        plant_crash(step, planted)
        with suppress(CrashError):
            reader.collect()
    living.add(Series(COUNT, ("red",)), 1)
    assert cells(tmp_path) == {("shop.orders", ("red",)): [1112.0]}
    assert names(tmp_path) == ["cells", "fold"]


def test_those_steps_are_all_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    living = one_living_and_three_dead(tmp_path, monkeypatch)
    with monkeypatch.context() as planted:
        plant_crash(CALLS + 1, planted)
        WorkerFolder(tmp_path, service="shop").collect()
    assert (tmp_path / str(living.store.file_name)).exists()
    assert names(tmp_path) == ["cells", "fold"]


def test_a_failing_fold_leaves_a_right_answer_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, dead = Worker(tmp_path), Worker(tmp_path)
    living.add(Series(COUNT, ("red",)), 1)
    dead.add(Series(COUNT, ("red",)), 2)
    dead.kill()
    failures: list[str] = []
    reader = WorkerFolder(
        tmp_path, service="shop", failed=lambda component, _: failures.append(component)
    )

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as planted:
        planted.setattr(os, "fsync", full)
        answer = reader.collect()
    assert [list(reading.cells) for reading in answer.readings] == [[3.0]]
    assert failures == ["multiprocess"]
    assert names(tmp_path) == ["cells", "cells"]
    assert cells(tmp_path) == {("shop.orders", ("red",)): [3.0]}


def test_whoever_holds_the_folder_keeps_no_scrape_waiting(tmp_path: Path) -> None:
    living, dead = Worker(tmp_path), Worker(tmp_path)
    living.add(Series(COUNT, ("red",)), 1)
    dead.add(Series(COUNT, ("red",)), 2)
    dead.kill()
    folder = open_folder(tmp_path)
    try:
        with try_exclusive(folder) as alone:
            assert alone
            assert cells(tmp_path) == {("shop.orders", ("red",)): [3.0]}
            assert names(tmp_path) == ["cells", "cells"]
    finally:
        os.close(folder)
    assert cells(tmp_path) == {("shop.orders", ("red",)): [3.0]}
    assert names(tmp_path) == ["cells", "fold"]


def test_many_scrapers_at_once_all_answer_right_while_workers_die(tmp_path: Path) -> None:
    expected = 0
    seen: list[list[float]] = []
    errors: list[BaseException] = []
    over = False

    def scrape() -> None:
        reader = WorkerFolder(tmp_path, service="shop")
        mine: list[float] = []
        try:
            while not over:
                mine.append(sum(sum(r.cells) for r in reader.collect().readings))
        except Exception as error:  # noqa: BLE001 - whatever it is fails the test
            errors.append(error)
        seen.append(mine)

    threads = [Thread(target=scrape) for _ in range(4)]
    Worker(tmp_path)
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            worker = Worker(tmp_path)
            worker.add(Series(COUNT, ("red",)), 1)
            expected += 1
            worker.kill()
    finally:
        over = True
        for thread in threads:
            thread.join()
    assert errors == []
    assert all(mine == sorted(mine) for mine in seen)
    assert cells(tmp_path) == {("shop.orders", ("red",)): [float(expected)]}


def forked(holds: Callable[[], bool]) -> int:
    """The id of a child that ends with 0 if it holds."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os._exit(0 if holds() else 1)
        os._exit(2)
    return child


def test_scrapers_in_other_processes_never_see_a_count_fall_while_workers_die(
    tmp_path: Path,
) -> None:
    folder, over = tmp_path / "w", tmp_path / "over"
    folder.mkdir(mode=0o700)

    def scrape() -> bool:
        reader = WorkerFolder(folder, service="shop")
        seen = [0.0]
        while not over.exists():
            seen.append(sum(sum(r.cells) for r in reader.collect().readings))
        return seen == sorted(seen)

    children = [forked(scrape) for _ in range(2)]
    for _ in range(60):
        worker = Worker(folder)
        worker.add(Series(COUNT, ("red",)), 1)
        worker.kill()
    over.touch()
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    assert cells(folder) == {("shop.orders", ("red",)): [60.0]}


def test_beyond_its_room_the_fold_adds_series_to_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding_module, "CELLS", 2)
    for colour in ("red", "blue", "green", "grey"):
        worker = Worker(tmp_path)
        worker.add(Series(COUNT, (colour,)), 1)
        worker.kill()
        cells(tmp_path)
    assert cells(tmp_path) == {
        ("shop.orders", ("red",)): [1.0],
        ("shop.orders", ("blue",)): [1.0],
        ("shop.orders", ("__overflow__",)): [2.0],
    }


def test_drafts_that_nobody_writes_to_are_removed(tmp_path: Path) -> None:
    Worker(tmp_path)
    (tmp_path / f"shop.{'0' * 32}.draft").write_text("half")
    cells(tmp_path)
    assert names(tmp_path) in (["fold"], ["cells", "fold"], ["cells"], [])
