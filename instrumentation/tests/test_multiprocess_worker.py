from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from taskscope.catalogue import Across, Kind, Label, Metric
from taskscope.errors import MultiprocessError
from taskscope.metrics.store import Exemplar, Series
from taskscope.multiprocess import WorkerFolder, WorkerStore

COUNT = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders.",
    owner="shop",
    labels=(Label("colour", cap=100, bounded_by="the palette"),),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{cart}", help="Carts.", owner="shop")
LEAST = Metric(
    name="shop.least", kind=Kind.GAUGE, unit="1", help="Least.", owner="shop", across=Across.MIN
)
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Waits.", owner="shop", buckets=(0.1, 1.0)
)


def add(store: WorkerStore, series: Series, amount: float = 1.0) -> int:
    with store.lock:
        base = store.allocate(series)
        assert base is not None
        store.cells[base] += amount
    return base


def cells(folder: Path) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    answer = WorkerFolder(folder, service="shop").collect()
    return {(r.series.metric.name, r.series.values): list(r.cells) for r in answer.readings}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a forked child that does `work`."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever it is shows in the exit status
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_one_worker_counts_is_what_the_folder_says(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path / "w", service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    base = add(store, Series(WAIT, (), WAIT.buckets), 2)
    store.cells[base + 3] += 0.1
    assert cells(tmp_path / "w") == {
        ("shop.orders", ("red",)): [3.0],
        ("shop.wait", ()): [2.0, 0.0, 0.0, 0.1],
    }


def test_the_sum_of_two_workers_and_gauges_as_declared(tmp_path: Path) -> None:
    one, two = WorkerStore(tmp_path, service="shop"), WorkerStore(tmp_path, service="shop")
    add(one, Series(OPEN), 4)
    add(two, Series(COUNT, ("red",)), 2)
    add(one, Series(COUNT, ("red",)), 1)
    add(two, Series(OPEN), 3)
    add(one, Series(LEAST), 0.5)
    add(two, Series(LEAST), 0.25)
    assert cells(tmp_path) == {
        ("shop.orders", ("red",)): [3.0],
        ("shop.open", ()): [7.0],
        ("shop.least", ()): [0.25],
    }


def test_folder_and_file_are_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "w"
    store = WorkerStore(folder, service="shop")
    assert store.file_name is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / store.file_name).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_refused_in_one_sentence(
    tmp_path: Path, mode: int
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w").chmod(mode)
    with pytest.raises(MultiprocessError, match=r"mode 07\d\d.*chmod 700"):
        WorkerStore(tmp_path / "w", service="shop")


def test_a_folder_that_is_a_symlink_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(MultiprocessError, match="cannot be opened"):
            WorkerStore(tmp_path / name, service="shop")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir(mode=0o700)
    os.chown(tmp_path / "w", 12_345, -1)
    with pytest.raises(MultiprocessError, match="belongs to user 12345"):
        WorkerStore(tmp_path / "w", service="shop")


def test_a_full_file_allocates_nothing_more_and_goes_on(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop", cells=2)
    add(store, Series(COUNT, ("red",)), 5)
    with store.lock:
        assert store.allocate(Series(WAIT, (), WAIT.buckets)) is None
    add(store, Series(COUNT, ("blue",)), 6)
    assert cells(tmp_path)["shop.orders", ("blue",)] == [6.0]


def test_a_full_disk_is_an_allocation_that_fails_and_never_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("red",)), 5)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as planted:
        planted.setattr(os, "pwrite", full)
        with store.lock:
            bases = [store.allocate(Series(COUNT, (str(n),))) for n in range(10_000)]
    assert bases[-1] is None
    assert sum(base is not None for base in bases) == len(cells(tmp_path)) - 1
    add(store, Series(COUNT, ("blue",)), 6)
    assert cells(tmp_path)["shop.orders", ("blue",)] == [6.0]


def test_a_full_disk_at_the_start_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MultiprocessError, match=r"No space left.*free some room"):
        WorkerStore(tmp_path, service="shop")
    assert names(tmp_path) == []


def test_a_label_value_that_utf8_cannot_write_is_stored_readably(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("a\udcffb",)))
    assert ("shop.orders", ("a?b",)) in cells(tmp_path)


def test_exemplars_are_seen_by_others_and_the_latest_wins(tmp_path: Path) -> None:
    one, two = WorkerStore(tmp_path, service="shop"), WorkerStore(tmp_path, service="shop")
    at = [add(store, Series(WAIT, (), WAIT.buckets)) for store in (one, two)]
    early, late = (Exemplar(c * 32, c * 16, 0.05, when) for c, when in (("a", 1.0), ("b", 2.0)))
    two.exemplify(at[1] + 1, late)
    one.exemplify(at[0] + 1, early)
    one.exemplify(at[0], early)
    one.exemplify(at[0], Exemplar("not hexadecimal", "x", 1.0, 3.0))
    (reading,) = WorkerFolder(tmp_path, service="shop").collect().readings
    assert reading.exemplars == {0: early, 1: late}


def test_after_close_it_counts_on_in_memory_and_the_folder_keeps_what_was(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    base = add(store, Series(COUNT, ("red",)), 5)
    store.close()
    store.cells[base] += 1
    add(store, Series(COUNT, ("blue",)))
    assert [list(reading.cells) for reading in store.readings()] == [[6.0], [1.0]]
    assert cells(tmp_path) == {("shop.orders", ("red",)): [5.0]}


def test_a_store_that_nobody_holds_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    for _ in range(5):
        WorkerStore(tmp_path, service="shop")
    assert len(names(Path("/proc/self/fd"))) == before


def test_a_forked_child_counts_from_zero_in_a_file_of_its_own(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    count = add(store, Series(COUNT, ("red",)), 5)
    add(store, Series(OPEN), 2)
    add(store, Series(LEAST), 0.5)
    mine = store.file_name

    def work() -> None:
        assert store.file_name not in (None, mine)
        store.cells[count] += 1
        add(store, Series(COUNT, ("blue",)), 7)
        assert cells(tmp_path)["shop.least", ()] == [0.5]

    assert in_child(work) == 0
    assert cells(tmp_path) == {
        ("shop.orders", ("red",)): [6.0],
        ("shop.orders", ("blue",)): [7.0],
        ("shop.open", ()): [2.0],
        ("shop.least", ()): [0.5],
    }


def test_the_parent_is_live_after_its_children_ended(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    for _ in range(3):
        assert in_child(lambda: None) == 0
    assert WorkerFolder(tmp_path, service="shop").collect().workers == 1
    assert store.file_name in names(tmp_path)


def test_a_parent_that_dies_is_dead_though_its_child_lives(tmp_path: Path) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        store = WorkerStore(tmp_path, service="shop")
        add(store, Series(OPEN), 5)
        held = memoryview(store.cells)[:1]  # type: ignore[arg-type] # it is one: its map stays in the child
        if os.fork() == 0:
            signal.alarm(20)
            os.write(write, os.getpid().to_bytes(4, "big"))
            assert held[0] == 5.0
        signal.pause()
    child = int.from_bytes(os.read(read, 4), "big")
    try:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        answer = WorkerFolder(tmp_path, service="shop").collect()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(read)
        os.close(write)
    assert answer.workers == 1
    assert [list(reading.cells) for reading in answer.readings] == [[0.0]]


def test_a_child_forked_while_another_thread_holds_the_lock_has_a_free_one(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    base = add(store, Series(COUNT, ("red",)))
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock:
            held.set()
            over.wait()

    def work() -> None:
        signal.alarm(5)
        with store.lock:
            store.cells[base] += 1

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(work) == 0
    finally:
        over.set()
        thread.join()
    assert cells(tmp_path)["shop.orders", ("red",)] == [2.0]


def test_forty_forks_while_another_thread_holds_the_lock_do_not_hang(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    base = add(store, Series(COUNT, ("red",)))
    folder = WorkerFolder(tmp_path, service="shop")
    over = threading.Event()

    def busy() -> None:
        number = 0
        while not over.is_set():
            with store.lock:
                store.allocate(Series(COUNT, (str(number % 50),)))
            folder.collect()
            number += 1

    def work() -> None:
        signal.alarm(10)
        with store.lock:
            store.cells[base] += 1
        folder.collect()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert {in_child(work) for _ in range(40)} == {0}
    finally:
        over.set()
        thread.join()
    assert cells(tmp_path)["shop.orders", ("red",)] == [41.0]
    assert len(names(tmp_path)) == 2


def test_a_child_without_a_file_counts_in_memory_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    store = WorkerStore(
        tmp_path, service="shop", failed=lambda component, _: failures.append(component)
    )
    base = add(store, Series(COUNT, ("red",)), 5)
    monkeypatch.setattr(os, "ftruncate", lambda *_: os.close(-1))

    def work() -> None:
        assert store.file_name is None
        assert failures == ["multiprocess"]
        store.cells[base] += 1
        add(store, Series(COUNT, ("blue",)))
        assert [list(reading.cells) for reading in store.readings()] == [[1.0], [1.0]]

    assert in_child(work) == 0
    assert cells(tmp_path) == {("shop.orders", ("red",)): [5.0]}
