"""A process that may open no more files: a scrape then says the whole sum or nothing, and nothing is lost."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.errors import MultiprocessError
from taskscope.metrics.store import Series
from taskscope.multiprocess import WorkerFolder, WorkerStore
from taskscope.testing.scarcity import descriptors_left

COUNT = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders.",
    owner="shop",
    labels=(Label("colour", cap=100, bounded_by="the palette"),),
)
DESCRIPTORS = 12
"""More than a scrape that folds has open at a time."""


def counted(folder: Path, amount: float) -> WorkerStore:
    store = WorkerStore(folder, service="shop")
    with store.lock:
        base = store.allocate(Series(COUNT, ("red",)))
        assert base is not None
        store.cells[base] += amount
    return store


def total(reader: WorkerFolder) -> float:
    return sum(sum(reading.cells) for reading in reader.collect().readings)


@pytest.mark.parametrize("left", range(DESCRIPTORS))
def test_with_few_descriptors_left_the_sum_is_whole_or_there_is_none(
    tmp_path: Path, left: int
) -> None:
    counted(tmp_path, 1).close()
    WorkerFolder(tmp_path, service="shop").fold()  # the first is in the fold
    living, dead = counted(tmp_path, 2), counted(tmp_path, 4)
    dead.close()
    reader = WorkerFolder(tmp_path, service="shop")
    told: list[float] = []
    with descriptors_left(left), suppress(MultiprocessError):
        told.append(total(reader))
    assert told in ([], [7.0])
    assert total(reader) == total(WorkerFolder(tmp_path, service="shop")) == 7.0
    living.close()


def test_a_fold_that_cannot_be_read_now_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(tmp_path, 1).close()
    WorkerFolder(tmp_path, service="shop").fold()
    counted(tmp_path, 2).close()
    inode = (tmp_path / "shop.fold").stat().st_ino
    really = os.pread

    def sick(file: int, length: int, at: int) -> bytes:
        if os.fstat(file).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(file, length, at)

    with monkeypatch.context() as planted:
        planted.setattr(os, "pread", sick)
        skipped = WorkerFolder(tmp_path, service="shop").collect().skipped
    assert skipped == (("shop.fold", "error"),)
    assert total(WorkerFolder(tmp_path, service="shop")) == 3.0
