"""Looking into a spool: newest first whatever its segments, torn and foreign ends left out, new lines each once."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.logs.ecs import LINE_BYTES, timestamp
from taskscope.logs.looking import Following, Seen, newest_first
from taskscope.logs.segments import SpoolReader
from taskscope.logs.spool import Spool

START_US = 1_700_000_000_000_000
NAME = "0123456789ab-0123456789abcdef-000000.seg"


def line(n: int, *, at: int | None = None, pad: int = 0) -> bytes:
    stamp = timestamp((START_US + n * 1000 if at is None else at) * 1000)
    return (
        json.dumps({"@timestamp": stamp, "n": n, "p": "x" * pad}, separators=(",", ":")).encode()
        + b"\n"
    )


def numbers(lines: Iterator[Seen]) -> list[int]:
    return [json.loads(found.raw)["n"] for found in lines]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def spool(folder: Path, **more: int) -> Spool:
    return Spool(
        folder, max_bytes=1 << 28, segment_bytes=more.get("segment_bytes", 1 << 22), sync_s=None
    )


def test_the_last_written_comes_first_whoever_wrote_it(tmp_path: Path) -> None:
    writers = [spool(tmp_path, segment_bytes=65_536) for _ in range(4)]
    order = random.Random(1)
    for n in range(3000):
        order.choice(writers).write(line(n, pad=200))
    for writer in writers:
        writer.close()
    assert len(list(tmp_path.glob("*.seg"))) > 8
    newest = list(range(2999, -1, -1))
    assert numbers(newest_first(tmp_path, since=START_US)) == newest
    # Each file is as old as its last line: then none is opened before its turn.
    for path in tmp_path.glob("*.seg"):
        last = json.loads(path.read_bytes().splitlines()[-1])["n"]
        os.utime(path, ns=(0, (START_US + last * 1000) * 1000))
    assert numbers(newest_first(tmp_path, since=START_US)) == newest


def test_lines_before_the_time_are_left_out(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    for n in range(100):
        writer.write(line(n))
    writer.close()
    found = newest_first(tmp_path, since=START_US + 90_000)
    assert numbers(found) == [99, 98, 97, 96, 95, 94, 93, 92, 91, 90]


def test_ids_are_the_shippers(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    for n in range(50):
        writer.write(line(n, pad=n * 7))
    writer.close()
    batch = SpoolReader(tmp_path).batch(max_lines=1000, max_bytes=1 << 20)
    assert batch is not None
    found = list(newest_first(tmp_path, since=0))
    assert [seen.id for seen in reversed(found)] == [each.id for each in batch.lines]


def test_of_shipped_lines_only_the_youngest_are_shown(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    for n in range(100):
        writer.write(line(n))
    reader = SpoolReader(tmp_path)
    batch = reader.batch(max_lines=60, max_bytes=1 << 20)
    assert batch is not None
    reader.acknowledge(batch)
    shown = newest_first(tmp_path, since=0, shipped_since=START_US + 50_000)
    assert numbers(shown) == list(range(99, 49, -1))
    writer.close()


@given(
    sizes=st.lists(st.sampled_from([0, 1, 50, 5000, 30_000, 32_700, 70_000, 200_000]), max_size=12),
    torn=st.sampled_from([b"", b'{"half', b"x" * 70_000]),
)
def test_whole_lines_are_found_once_between_what_is_none(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], torn: bytes
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    lines = [line(n, pad=size) for n, size in enumerate(sizes)]
    (folder / NAME).write_bytes(b"".join(lines) + torn)
    good = [n for n, text in enumerate(lines) if len(text) <= LINE_BYTES]
    found = list(newest_first(folder, since=0))
    assert numbers(iter(found)) == good[::-1]
    offsets = [sum(map(len, lines[:n])) for n in good[::-1]]
    assert [int(seen.id.rsplit("-", 1)[1], 16) for seen in found] == offsets
    for n in good:
        only = newest_first(folder, since=0, holding=(f'"n":{n},'.encode(), b"@timestamp"))
        assert numbers(only) == [n]


def test_what_is_no_segment_of_ours_is_left_alone(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    writer.write(line(1))
    writer.close()
    (tmp_path / NAME).symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / NAME.replace("000000", "000001"))
    (tmp_path / "odd.seg").write_bytes(line(2))
    (tmp_path / NAME.replace("000000", "000002")).mkdir()
    assert numbers(newest_first(tmp_path, since=0)) == [1]
    following = Following(tmp_path, from_start=True)
    assert numbers(following.lines()) == [1]
    following.close()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(newest_first(tmp_path / "none", since=0))


def test_a_follower_sees_each_new_line_once_through_rolls_and_removals(tmp_path: Path) -> None:
    writer = spool(tmp_path, segment_bytes=65_536)
    writer.write(line(-1))
    following = Following(tmp_path)
    reader = SpoolReader(tmp_path)
    found: list[int] = []
    for n in range(1500):
        writer.write(line(n, pad=300))
        if n % 7 == 0:
            found += numbers(following.lines())
        if n % 50 == 0:
            # All is shipped, and each segment but the last is removed at once.
            while (batch := reader.batch(max_lines=1000, max_bytes=1 << 20)) is not None:
                reader.acknowledge(batch)
    assert len(list(tmp_path.glob("*.seg"))) <= 2
    found += numbers(following.lines())
    assert sorted(found) == list(range(1500))
    writer.close()
    assert numbers(following.lines()) == []
    following.close()


def test_what_was_shipped_and_removed_since_the_last_look_is_seen_all_the_same(
    tmp_path: Path,
) -> None:
    writer = spool(tmp_path)
    writer.write(line(1))
    following = Following(tmp_path, from_start=True)
    assert numbers(following.lines()) == [1]
    writer.write(line(2))
    writer.close()
    reader = SpoolReader(tmp_path)
    while (batch := reader.batch(max_lines=1000, max_bytes=1 << 20)) is not None:
        reader.acknowledge(batch)
    assert list(tmp_path.glob("*.seg")) == []
    assert numbers(following.lines()) == [2]
    assert numbers(following.lines()) == []
    following.close()


def test_half_a_line_is_shown_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / NAME
    whole = line(7)
    path.write_bytes(line(6) + whole[:20])
    following = Following(tmp_path)
    following_from_start = Following(tmp_path, from_start=True)
    # A writer that lives holds its segment's lock.
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert numbers(following.lines()) == []
        assert numbers(following_from_start.lines()) == [6]
        file.write(whole[20:])
        file.flush()
        assert numbers(following.lines()) == [7]
        assert numbers(following_from_start.lines()) == [7]
    following.close()
    following_from_start.close()


def test_no_descriptor_is_held_for_writers_that_have_ended(tmp_path: Path) -> None:
    before = open_files()
    following = Following(tmp_path, from_start=True)
    for n in range(50):
        writer = spool(tmp_path)
        writer.write(line(n))
        writer.close()
    assert sorted(numbers(following.lines())) == list(range(50))
    assert open_files() == before
    assert numbers(following.lines()) == []
    following.close()
