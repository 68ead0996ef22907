"""Readers see whole lines once, in order, and nothing that a stranger planted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.segments import Batch, SpoolReader, pending
from taskscope.logs.spool import Spool
from taskscope.testing.disks import Platter

NAME = "0197a0000000-0123456789abcdef-000000.seg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    made = Spool(folder, max_bytes=1 << 26, segment_bytes=1 << 16, sync_s=None)
    yield made
    made.close()


def batch(reader: SpoolReader, *, lines: int = 1000) -> Batch | None:
    return reader.batch(max_lines=lines, max_bytes=1 << 20)


def raws(found: Batch | None) -> list[bytes]:
    assert found is not None
    return [line.raw for line in found.lines]


def test_a_line_has_the_same_id_however_often_it_is_read(spool: Spool) -> None:
    spool.write(b'{"n":1}\n')
    spool.write(b'{"n":2}\n')
    first = batch(SpoolReader(spool.folder))
    again = batch(SpoolReader(spool.folder), lines=1)
    assert first is not None
    assert again is not None
    assert first.lines[0] == again.lines[0]
    assert [line.id for line in first.lines] == [
        spool.segment.removesuffix(".seg") + "-0",
        spool.segment.removesuffix(".seg") + "-8",
    ]


def test_what_was_acknowledged_is_not_read_again_by_another(spool: Spool) -> None:
    for n in range(3):
        spool.write(b'{"n":%d}\n' % n)
    reader = SpoolReader(spool.folder)
    found = batch(reader, lines=2)
    assert found is not None
    reader.acknowledge(found)
    assert raws(batch(reader)) == [b'{"n":2}\n']
    assert raws(batch(SpoolReader(spool.folder))) == [b'{"n":2}\n']


def test_a_writer_that_never_rests_keeps_no_other_waiting(folder: Path) -> None:
    writers = [
        Spool(folder, max_bytes=1 << 26, segment_bytes=1 << 16, sync_s=None) for _ in range(3)
    ]
    reader = SpoolReader(folder)
    served = set()
    for _ in range(3):
        for writer in writers:
            writer.write(b'{"n":1}\n')
        found = batch(reader)
        assert found is not None
        reader.acknowledge(found)
        served.add(found.segment)
    written = {writer.segment for writer in writers}
    for writer in writers:
        writer.close()
    assert served == written


def test_a_line_that_is_being_written_is_not_read(spool: Spool) -> None:
    spool.write(b'{"n":1}\n')
    with (spool.folder / spool.segment).open("ab") as file:
        file.write(b'{"n":')
    assert raws(batch(SpoolReader(spool.folder))) == [b'{"n":1}\n']


def test_a_live_segment_stays_though_it_is_read_to_its_end(spool: Spool) -> None:
    spool.write(b"{}\n")
    reader = SpoolReader(spool.folder)
    found = batch(reader)
    assert found is not None
    reader.acknowledge(found)
    assert batch(reader) is None
    assert (spool.folder / spool.segment).exists()


def test_a_finished_segment_is_removed_with_its_acknowledgement(spool: Spool) -> None:
    spool.write(b"{}\n")
    spool.close()
    reader = SpoolReader(spool.folder)
    found = batch(reader)
    assert found is not None
    assert batch(reader) == found
    reader.acknowledge(found)
    assert batch(reader) is None
    assert list(spool.folder.iterdir()) == []


def test_half_a_line_of_a_dead_writer_is_dropped_and_counted(folder: Path) -> None:
    (folder / NAME).write_bytes(b'{"n":1}\n{"n":')
    reader = SpoolReader(folder)
    found = batch(reader)
    assert raws(found) == [b'{"n":1}\n']
    assert found is not None
    reader.acknowledge(found)
    assert batch(reader) is None
    assert reader.torn == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"garbage", b"-5\n", b"999999\n", b"3\n", b"8"])
def test_an_acknowledgement_that_cannot_be_is_not_believed(folder: Path, text: bytes) -> None:
    (folder / NAME).write_bytes(b'{"n":1}\n{"n":2}\n')
    (folder / f"{NAME}.ack").write_bytes(text)
    assert len(raws(batch(SpoolReader(folder)))) == 2


def test_what_is_no_line_is_given_apart_and_the_rest_is_read(folder: Path) -> None:
    (folder / NAME).write_bytes(b'{"n":1}\n\nnonsense\n\x00\x00\n{"n":2}\n')
    found = batch(SpoolReader(folder))
    assert raws(found) == [b'{"n":1}\n', b'{"n":2}\n']
    assert found is not None
    assert [line.raw for line in found.damaged] == [b"\n", b"nonsense\n", b"\x00\x00\n"]


def test_a_line_longer_than_any_of_ours_is_stepped_over(folder: Path) -> None:
    (folder / NAME).write_bytes(b"{" + b"x" * 3_000_000 + b'}\n{"n":2}\n')
    reader = SpoolReader(folder)
    found = batch(reader)
    assert found is not None
    assert found.lines == ()
    assert [len(line.raw) for line in found.damaged] == [LINE_BYTES]
    reader.acknowledge(found)
    assert raws(batch(reader)) == [b'{"n":2}\n']


def test_strangers_are_set_aside_and_the_rest_is_read(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b'{"secret":1}\n')
    (folder / NAME.replace("000000.seg", "000001.seg")).symlink_to(secret)
    os.mkfifo(folder / NAME.replace("000000.seg", "000002.seg"))
    (folder / NAME.replace("000000.seg", "000003.seg")).mkdir()
    os.link(secret, folder / NAME.replace("000000.seg", "000004.seg"))
    (folder / "..%2fx.seg").write_bytes(b"{}\n")
    (folder / "notes.txt").write_bytes(b"mine")
    (folder / NAME).write_bytes(b'{"n":1}\n')
    reader = SpoolReader(folder)
    found = batch(reader)
    assert raws(found) == [b'{"n":1}\n']
    assert found is not None
    reader.acknowledge(found)
    assert batch(reader) is None
    assert len(reader.set_aside) == 5
    assert sorted(path.name for path in folder.iterdir()) == ["aside", "notes.txt"]
    assert secret.read_bytes() == b'{"secret":1}\n'


def test_a_segment_of_this_format_is_read_by_every_later_reader(folder: Path) -> None:
    """What the first version wrote, byte for byte."""
    name = "0197a0000000-0123456789abcdef-00000a.seg"
    (folder / name).write_bytes(b'{"@timestamp":"2026-01-01T00:00:00.000000Z"}\n{"n":2}\n{"n":')
    (folder / f"{name}.ack").write_bytes(b"45\n")
    reader = SpoolReader(folder)
    found = batch(reader)
    assert found is not None
    assert [(line.id, line.raw) for line in found.lines] == [
        ("0197a0000000-0123456789abcdef-00000a-2d", b'{"n":2}\n')
    ]


def test_a_segment_of_a_later_format_waits_and_is_named_once(folder: Path) -> None:
    later = ["0197a0000000-0123456789abcdef-000000.seg2", "0197a-any-name.seg10"]
    for name in later:
        (folder / name).write_bytes(b"\x01\x02")
    (folder / NAME).write_bytes(b'{"n":1}\n')
    reader = SpoolReader(folder)
    assert raws(batch(reader)) == [b'{"n":1}\n']
    batch(reader)
    assert sorted(reader.later) == sorted(later)
    assert reader.set_aside == []
    assert all((folder / name).read_bytes() == b"\x01\x02" for name in later)


def test_without_descriptors_nothing_is_set_aside_and_the_reader_says_so(folder: Path) -> None:
    disk = Platter().process()
    disk.mkdir(str(folder), 0o700)
    disk.write(disk.open(f"{folder}/{NAME}", os.O_CREAT), b'{"n":1}\n')
    reader = SpoolReader(folder, disk=disk)
    disk.fail_next("open", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        batch(reader)
    assert reader.set_aside == []
    assert raws(batch(reader)) == [b'{"n":1}\n']


def test_a_segment_that_the_disk_does_not_give_back_holds_up_no_other(folder: Path) -> None:
    platter = Platter()
    disk = platter.process()
    disk.mkdir(str(folder), 0o700)
    bad, good = NAME, NAME.replace("000000.seg", "000001.seg")
    for name in (bad, good):
        fd = disk.open(f"{folder}/{name}", os.O_CREAT)
        disk.write(fd, b'{"n":1}\n')
        disk.close(fd)
    reader = SpoolReader(folder, disk=disk)
    disk.fail_next("pread", errno.EIO)
    found = batch(reader)
    assert found is not None
    assert found.segment == good
    assert reader.set_aside == [bad]


def test_blocks_that_never_reached_the_disk_are_no_lines(folder: Path) -> None:
    (folder / NAME).write_bytes(b'{"n":1}\n{"n":2' + bytes(20) + b'"}\n{"n":3}\n')
    found = batch(SpoolReader(folder))
    assert raws(found) == [b'{"n":1}\n', b'{"n":3}\n']
    assert found is not None
    assert len(found.damaged) == 1


def test_a_file_of_another_user_is_set_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / NAME).write_bytes(b"{}\n")
    if os.geteuid() == 0:
        os.chown(folder / NAME, 65534, 65534)
    else:
        # Without root nobody can give a file away: then this process takes itself for another user.
        root = Path("/").stat()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(Path, "stat", lambda _: root)
    reader = SpoolReader(folder)
    assert batch(reader) is None
    assert reader.set_aside == [NAME]


def test_what_waits_is_told_in_bytes_and_seconds(folder: Path) -> None:
    line = b'{"@timestamp":"2026-01-01T00:00:00.000000Z"}\n'
    later = b'{"@timestamp":"2026-01-01T00:00:30.500000Z"}\n'
    (folder / NAME).write_bytes(line + later)
    now = 1767225660.0
    assert pending(folder, now=now).bytes == len(line) + len(later)
    assert pending(folder, now=now).oldest_s == 60.0
    reader = SpoolReader(folder)
    found = batch(reader, lines=1)
    assert found is not None
    reader.acknowledge(found)
    assert pending(folder, now=now).bytes == len(later)
    assert pending(folder, now=now).oldest_s == 29.5


def test_nothing_waits_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    found = pending(tmp_path / "none", now=5.0)
    assert (found.bytes, found.oldest_s) == (0, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60).map(lambda b: b"{" + b.translate(None, b"\n\0") + b"}\n"),
        max_size=30,
    ),
    st.integers(min_value=1, max_value=7),
    st.data(),
)
def test_readers_that_stop_anywhere_lose_and_repeat_nothing_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], step: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s")
    (folder / NAME).write_bytes(b"".join(lines))
    reader, seen = SpoolReader(folder), []
    while (found := batch(reader, lines=step)) is not None:
        if data.draw(st.booleans()):
            reader = SpoolReader(folder)  # died before it acknowledged
            continue
        seen += [line.raw for line in found.lines]
        reader.acknowledge(found)
    assert seen == lines
