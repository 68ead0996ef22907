from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from taskscope.multiprocess import foreign as foreign_module
from taskscope.multiprocess import foreign_multiprocess

COUNTING = """
from prometheus_client import Counter, Gauge, Histogram
Counter("orders", "Orders.", ["colour"]).labels("red").inc(3)
Gauge("carts", "Carts.", multiprocess_mode="livesum").set(2)
Histogram("wait", "Waits.", buckets=(0.1, 1.0)).observe(0.5)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which two processes counted with prometheus_client."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNTING], env=environ, check=True)
    return folder


def samples(folder: Path) -> dict[str, float]:
    found = foreign_multiprocess(folder)
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in found.families
        for sample in family.samples
    }


def sound(labels: dict[str, str], name: str = "orders_total") -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        values = MmapedDict(str(path))
        values.write_value(
            mmap_key("orders", name, list(labels), list(labels.values()), "O."), 1, 0
        )
        values.close()

    return plant


def of(content: bytes) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.write_bytes(content)

    return plant


def symlink(path: Path) -> None:
    path.symlink_to(next(path.parent.glob("counter_*.db")))


def foreign(path: Path) -> None:
    sound({"colour": "red"})(path)
    os.chown(path, 12_345, -1)


def huge(path: Path) -> None:
    path.write_bytes(struct.pack("=i", 8))
    os.truncate(path, 1 << 30)


KEY = struct.pack("=ii", 40, 0) + struct.pack("=i", 12)
HOSTILE = {
    "empty": ("empty", of(b"")),
    "garbage": ("garbage", of(b"\xff" * 4_096)),
    "three bytes": ("garbage", of(b"abc")),
    "text": ("garbage", of(b"hello world, this is text\n")),
    "a length beyond its end": ("garbage", of(struct.pack("=ii", 1 << 30, 0))),
    "a negative length": ("garbage", of(struct.pack("=ii", -5, 0))),
    "a key beyond its end": ("garbage", of(struct.pack("=iii", 32, 0, 1 << 20) + bytes(20))),
    "a key that is no JSON": ("garbage", of(KEY + b"not json at!" + bytes(16))),
    "a key of length 0": ("garbage", of(struct.pack("=iii", 32, 0, 0) + bytes(20))),
    "labels that end a line": ("garbage", sound({"a\nb": "x"})),
    "a name that is none": ("garbage", sound({}, name="1 2\n3")),
    "too long": ("garbage", huge),
    "symlink": ("not_regular", symlink),
    "fifo": ("not_regular", os.mkfifo),
    "folder": ("not_regular", os.mkdir),
    "foreign": ("foreign", foreign),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_one_bad_file_is_left_out_and_the_sum_of_the_others_is_right(
    place: Path, kind: str
) -> None:
    before = samples(place)
    reason, plant = HOSTILE[kind]
    plant(place / "counter_99.db")
    found = foreign_multiprocess(place)
    assert found.skipped == (("counter_99.db", reason),)
    assert samples(place) == before
    assert before["orders_total[('colour', 'red')]"] == 6.0
    assert before["carts[]"] == 4.0
    assert before["wait_bucket[('le', '1.0')]"] == 2.0


@pytest.mark.parametrize("name", ["other_1.db", "gauge_odd_1.db", "gauge.db", "counter_.db"])
def test_a_sound_file_of_an_odd_name_is_left_out(place: Path, name: str) -> None:
    sound({"colour": "red"})(place / name)
    assert foreign_multiprocess(place).skipped == ((name, "garbage"),)


def test_a_bucket_bound_that_is_no_number_is_left_out(place: Path) -> None:
    sound({"le": "wide"}, name="orders_bucket")(place / "histogram_9.db")
    assert foreign_multiprocess(place).skipped == (("histogram_9.db", "garbage"),)


def test_a_file_that_is_not_written_to_yet_is_sound(place: Path) -> None:
    (place / "counter_99.db").write_bytes(bytes(65_536))
    assert foreign_multiprocess(place).skipped == ()


def test_what_turns_bad_between_the_check_and_the_reading_is_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = samples(place)
    (place / "counter_99.db").write_bytes(b"")
    check = foreign_module._check
    monkeypatch.setattr(
        foreign_module, "_check", lambda f, name: None if "99" in name else check(f, name)
    )
    assert foreign_multiprocess(place).skipped == (("counter_99.db", "error"),)
    assert samples(place) == before


def test_a_folder_that_is_not_there_is_left_out_as_a_whole(tmp_path: Path) -> None:
    found = foreign_multiprocess(tmp_path / "none")
    assert (found.families, found.skipped) == ((), ((str(tmp_path / "none"), "error"),))
