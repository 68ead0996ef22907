"""Counting on the request path: nothing is lost or doubled, whoever looks meanwhile."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from taskscope import Catalogue
from taskscope.catalogue.builtin import TRACED
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.tally import MOST_NOTED, counting
from taskscope.multiprocess import WorkerStore
from taskscope.testing.metrics import isolated, value


def test_what_was_counted_is_there_when_somebody_looks() -> None:
    instruments = isolated()
    count = counting(instruments, instruments.counter(TRACED).at(("late",)))
    for _ in range(MOST_NOTED + 7):
        count()
    assert value(instruments.registry, TRACED, decision="late") == MOST_NOTED + 7
    assert value(instruments.registry, TRACED, decision="late") == MOST_NOTED + 7


def test_threads_that_count_and_threads_that_look_lose_nothing() -> None:
    instruments = isolated()
    count = counting(instruments, instruments.counter(TRACED).at(("late",)))

    def many() -> None:
        for _ in range(5_000):
            count()

    def look() -> None:
        for _ in range(20):
            instruments.refresh()

    threads = [Thread(target=many) for _ in range(6)] + [Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(instruments.registry, TRACED, decision="late") == 30_000


def test_where_other_processes_read_each_is_written_at_once(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path / "workers", service="test")
    child = Instruments(Catalogue(service="test"), store=store).counter(TRACED).at(("late",))
    counting(Instruments(Catalogue(service="other")), child)()
    assert store.cells[child.base] == 1.0
    store.close()
