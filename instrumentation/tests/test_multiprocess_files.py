from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from taskscope.catalogue import Across, Kind, Label, Metric
from taskscope.metrics.store import Series
from taskscope.multiprocess import WorkerFolder, WorkerStore
from taskscope.multiprocess.layout import HEADER_BYTES, MAX_FILE_BYTES

COUNT = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders.",
    owner="shop",
    labels=(Label("colour", cap=100, bounded_by="the palette"),),
)
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Waits.", owner="shop", buckets=(0.1, 1.0)
)
ID = "0123456789abcdef" * 2
NAME = f"shop.{ID}.cells"


def add(store: WorkerStore, series: Series, amount: float = 1.0) -> int:
    with store.lock:
        base = store.allocate(series)
        assert base is not None
        store.cells[base] += amount
    return base


def worker_bytes(folder: Path) -> bytes:
    store = WorkerStore(folder, service="shop")
    add(store, Series(COUNT, ("red",)), 7)
    assert store.file_name is not None
    content = (folder / store.file_name).read_bytes()
    store.close()
    return content


def resigned(content: bytes, at: int, field: bytes) -> bytes:
    changed = content[:at] + field + content[at + len(field) :]
    return changed[:112] + struct.pack("=I", crc32(changed[:112])) + changed[116:]


def fifo(path: Path, _: bytes) -> None:
    os.mkfifo(path)


def folder(path: Path, _: bytes) -> None:
    path.mkdir()


def symlink(path: Path, content: bytes) -> None:
    target = path.parent.parent / "target"
    target.write_bytes(content)
    path.symlink_to(target)


def dangling(path: Path, _: bytes) -> None:
    path.symlink_to(path.parent / "nowhere")


def listening(path: Path, _: bytes) -> None:
    server = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is at most 108 bytes long
    try:
        server.bind(path.name)
    finally:
        os.chdir(before)
        server.close()


def foreign(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.chown(path, 12_345, -1)


def of(change: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    def plant(path: Path, content: bytes) -> None:
        path.write_bytes(change(content))

    return plant


def too_long(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.truncate(path, MAX_FILE_BYTES + 1)


HOSTILE = {
    "empty": ("empty", of(lambda _: b"")),
    "garbage": ("garbage", of(lambda _: b"\xff" * 70_000)),
    "text": ("garbage", of(lambda _: b"hello\n")),
    "zeros": ("garbage", of(lambda content: bytes(len(content)))),
    "half a header": ("garbage", of(lambda content: content[:100])),
    "cut short": ("garbage", of(lambda content: content[:50_000])),
    "longer than it says": ("garbage", of(lambda content: content + b"\0")),
    "too long": ("garbage", too_long),
    "another file's name": ("garbage", of(lambda content: content)),
    "a header of a flipped bit": ("garbage", of(lambda c: c[:64] + b"\xff" + c[65:])),
    "a fold's role": ("garbage", of(lambda c: resigned(c, 12, struct.pack("=I", 2)))),
    "more cells than there may be": (
        "garbage",
        of(lambda c: resigned(c, 80, struct.pack("=Q", 1 << 60))),
    ),
    "more keys than there is room": (
        "garbage",
        of(lambda c: c[:128] + struct.pack("=Q", 1 << 60) + c[136:]),
    ),
    "a later version": ("version", of(lambda c: resigned(c, 8, struct.pack("=I", 99)))),
    "fifo": ("not_regular", fifo),
    "folder": ("not_regular", folder),
    "symlink": ("not_regular", symlink),
    "dangling symlink": ("not_regular", dangling),
    "socket": ("not_regular", listening),
    "foreign": ("foreign", foreign),
}


@pytest.mark.parametrize("name", [NAME, "shop.fold", "shop.skipped", "notes.txt", "shop.ABC.cells"])
@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_file_is_left_out_and_named_once_and_the_sum_is_right(
    tmp_path: Path, kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    reason, plant = HOSTILE[kind]
    place = tmp_path / "w"
    content = worker_bytes(tmp_path / "other")
    store = WorkerStore(place, service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    plant(place / name, content)
    reader = WorkerFolder(place, service="shop")
    with caplog.at_level(logging.WARNING):
        answers = [reader.collect() for _ in range(3)]
        answers.append(WorkerFolder(place, service="shop").collect())
    assert [[list(r.cells) for r in answer.readings] for answer in answers] == [[[3.0]]] * 4
    told = [skipped for answer in answers for skipped in answer.skipped]
    if name in (NAME, "shop.fold"):
        assert told == [(name, reason)]
        assert len(caplog.records) == 1
        assert name in caplog.text
    else:
        assert [found for found, _ in told] in ([name], [])


def test_a_file_that_changes_is_reported_again(tmp_path: Path) -> None:
    WorkerStore(tmp_path, service="shop")
    reader = WorkerFolder(tmp_path, service="shop")
    (tmp_path / NAME).write_text("")
    assert reader.collect().skipped == ((NAME, "empty"),)
    (tmp_path / NAME).write_text("not empty")
    assert reader.collect().skipped == ((NAME, "garbage"),)
    (tmp_path / NAME).unlink()
    assert reader.collect().skipped == ()
    (tmp_path / NAME).write_text("")
    assert reader.collect().skipped == ((NAME, "empty"),)


def test_a_name_that_is_no_text_is_named_in_ascii(tmp_path: Path) -> None:
    WorkerStore(tmp_path, service="shop")
    (tmp_path / os.fsdecode(b"a\xff\n.cells")).write_text("")
    assert WorkerFolder(tmp_path, service="shop").collect().skipped == (
        ("a\\udcff\\n.cells", "empty"),
    )


def test_a_garbage_fold_is_replaced_when_the_next_worker_dies(tmp_path: Path) -> None:
    (tmp_path / "shop.fold").write_bytes(b"\xff" * 9_000)
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    store.close()
    for _ in range(2):
        (reading,) = WorkerFolder(tmp_path, service="shop").collect().readings
        assert list(reading.cells) == [3.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shop.fold", "shop.skipped"]


def test_a_flipped_bit_in_the_fold_is_noticed(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    store.close()
    WorkerFolder(tmp_path, service="shop").collect()
    content = bytearray((tmp_path / "shop.fold").read_bytes())
    content[-30] ^= 1
    (tmp_path / "shop.fold").write_bytes(content)
    answer = WorkerFolder(tmp_path, service="shop").collect()
    assert answer.readings == []
    assert answer.skipped == (("shop.fold", "garbage"),)


def test_a_fold_of_a_later_version_is_never_replaced(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    store.close()
    WorkerFolder(tmp_path, service="shop").collect()
    later = resigned((tmp_path / "shop.fold").read_bytes(), 8, struct.pack("=I", 2))
    (tmp_path / "shop.fold").write_bytes(later)
    second = WorkerStore(tmp_path, service="shop")
    add(second, Series(COUNT, ("red",)), 4)
    second.close()
    answer = WorkerFolder(tmp_path, service="shop").collect()
    assert [list(reading.cells) for reading in answer.readings] == [[4.0]]
    assert (tmp_path / "shop.fold").read_bytes() == later


@pytest.mark.parametrize("lost", [1, 5, 16, 24])
def test_half_a_key_ends_the_reading_and_what_stands_before_it_counts(
    tmp_path: Path, lost: int
) -> None:
    store = WorkerStore(tmp_path, service="shop")
    add(store, Series(COUNT, ("red",)), 3)
    add(store, Series(COUNT, ("blue",)), 4)
    assert store.file_name is not None
    path = tmp_path / store.file_name
    content = bytearray(path.read_bytes())
    (used,) = struct.unpack_from("=Q", content, 128)
    content[HEADER_BYTES + used - lost : HEADER_BYTES + used] = bytes(lost)
    store.close()
    path.write_bytes(content)
    answer = WorkerFolder(tmp_path, service="shop").collect()
    assert [list(reading.cells) for reading in answer.readings] == [[3.0]]
    assert answer.skipped == ((path.name, "garbage"),)


def test_services_that_share_a_folder_do_not_see_each_other(tmp_path: Path) -> None:
    shop, bank = WorkerStore(tmp_path, service="shop"), WorkerStore(tmp_path, service="bank")
    add(shop, Series(COUNT, ("red",)), 3)
    add(bank, Series(COUNT, ("red",)), 4)
    bank.close()
    for service, count in (("shop", 3.0), ("bank", 4.0)):
        answer = WorkerFolder(tmp_path, service=service).collect()
        assert [list(reading.cells) for reading in answer.readings] == [[count]]
        assert answer.skipped == ()


def test_of_two_versions_the_youngest_live_worker_decides_and_the_other_is_named(
    tmp_path: Path,
) -> None:
    other = (0.5, 2.0)
    old, new = (WorkerStore(tmp_path, service="shop", now=lambda at=at: at) for at in (1, 2))
    add(old, Series(WAIT, (), WAIT.buckets), 5)
    add(old, Series(COUNT, ("red",)), 1)
    add(new, Series(WAIT, (), other), 7)
    add(new, Series(COUNT, ("red",)), 2)
    reader = WorkerFolder(tmp_path, service="shop", known=(WAIT,))
    answer = reader.collect()
    assert [(r.series.bounds, r.cells[0]) for r in answer.readings] == [(other, 7.0), ((), 3.0)]
    assert answer.skipped == ((old.file_name, "version"),)
    new.close()
    answer = reader.collect()
    assert [(r.series.bounds, r.cells[0]) for r in answer.readings] == [
        (WAIT.buckets, 5.0),
        ((), 3.0),
    ]
    newest = WorkerStore(tmp_path, service="shop", now=lambda: 3)
    add(newest, Series(WAIT, (), other), 1)
    answer = reader.collect()
    assert [(r.series.bounds, r.cells[0]) for r in answer.readings] == [(other, 8.0), ((), 3.0)]


def test_series_of_one_metric_may_have_bounds_of_their_own(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    labelled = Metric(
        name="shop.time",
        kind=Kind.HISTOGRAM,
        unit="s",
        help="Time.",
        owner="shop",
        labels=(Label("place", values=("a", "b")),),
        buckets=(0.1,),
    )
    add(store, Series(labelled, ("a",), (0.1,)), 5)
    add(store, Series(labelled, ("b",), (0.5, 1.0)), 6)
    store.close()
    for _ in range(2):
        answer = WorkerFolder(tmp_path, service="shop").collect()
        assert [(r.series.bounds, r.cells[0]) for r in answer.readings] == [
            ((0.1,), 5.0),
            ((0.5, 1.0), 6.0),
        ]
        assert answer.skipped == ()


def test_a_metric_of_another_kind_or_labels_is_left_out_and_named(tmp_path: Path) -> None:
    old, new = (WorkerStore(tmp_path, service="shop", now=lambda at=at: at) for at in (1, 2))
    relabelled = Metric(
        name="shop.orders", kind=Kind.COUNTER, unit="{order}", help="Orders.", owner="shop"
    )
    add(old, Series(COUNT, ("red",)), 5)
    add(new, Series(relabelled), 7)
    answer = WorkerFolder(tmp_path, service="shop").collect()
    assert [list(reading.cells) for reading in answer.readings] == [[7.0]]
    assert answer.skipped == ((old.file_name, "version"),)


def test_a_metric_that_this_process_does_not_know_is_shown_all_the_same(tmp_path: Path) -> None:
    store = WorkerStore(tmp_path, service="shop")
    most = Metric(
        name="shop.most", kind=Kind.GAUGE, unit="1", help="Most.", owner="x", across=Across.MAX
    )
    add(store, Series(most), 0.5)
    add(store, Series(COUNT, ("red",)), 2)
    second, first = WorkerFolder(tmp_path, service="shop", known=(COUNT,)).collect().readings
    assert first.series.metric is COUNT
    assert (second.series.metric.family, second.series.metric.help) == ("shop_most_ratio", "Most.")
