"""What the spool has answered as stored is on disk, whoever dies; what it cannot store it says."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope.logs.segments import SpoolReader
from taskscope.logs.spool import ERRORS, SEGMENT_NAME, USUAL, WARNINGS, Spool, Written

KIB = 1024


def spool_in(
    folder: Path,
    *,
    max_bytes: int = 64 * KIB * KIB,
    segment_bytes: int = 64 * KIB,
    sync_s: float | None = None,
) -> Spool:
    return Spool(folder, max_bytes=max_bytes, segment_bytes=segment_bytes, sync_s=sync_s)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def everything(folder: Path) -> tuple[list[bytes], SpoolReader]:
    reader = SpoolReader(folder)
    lines: list[bytes] = []
    while (batch := reader.batch(max_lines=1000, max_bytes=KIB * KIB)) is not None:
        lines += [line.raw for line in batch.lines]
        reader.acknowledge(batch)
    return lines, reader


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = spool_in(tmp_path / "spool")
    yield made
    made.close()


def test_a_line_is_on_disk_when_write_returns(spool: Spool) -> None:
    assert spool.write(b"{}\n") is Written.STORED
    assert (spool.folder / spool.segment).read_bytes() == b"{}\n"


def test_folder_and_files_are_for_their_user_alone(spool: Spool) -> None:
    spool.write(b"{}\n")
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in spool.folder.iterdir()] == [0o600]


def test_segments_are_named_so_that_they_sort_by_age(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    for n in range(300):
        spool.write(b'{"n":"%04d%s"}\n' % (n, b"x" * 1000))
    spool.close()
    names = [path.name for path in segments(spool.folder)]
    assert len(names) > 3
    assert all(SEGMENT_NAME.match(name) for name in names)
    assert b"".join(path.read_bytes() for path in segments(spool.folder)).count(b"\n") == 300
    lines, _ = everything(spool.folder)
    assert [int(line[6:10]) for line in lines] == list(range(300))


def test_threads_do_not_mix_their_lines(spool: Spool) -> None:
    def write(sign: bytes) -> None:
        for _ in range(300):
            spool.write(b"{" + sign * 500 + b"}\n")

    threads = [threading.Thread(target=write, args=(sign,)) for sign in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    lines, _ = everything(spool.folder)
    assert sorted(lines) == sorted(
        b"{" + sign * 500 + b"}\n" for sign in (b"a", b"b", b"c", b"d") for _ in range(300)
    )


def test_above_its_bound_lines_are_refused_the_most_urgent_last(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s", max_bytes=128 * KIB)
    line = b"{" + b"x" * 1000 + b"}\n"
    ends = []
    for urgent in (USUAL, WARNINGS, ERRORS):
        while (answer := spool.write(line, urgent=urgent)) is Written.STORED:
            pass
        assert answer is Written.SPOOL_FULL
        ends.append(sum(path.stat().st_size for path in segments(spool.folder)))
    reserve = 8 * KIB  # a sixteenth
    for end, bound in zip(
        ends, (128 * KIB - 2 * reserve, 128 * KIB - reserve, 128 * KIB), strict=True
    ):
        assert bound - len(line) < end <= bound
    spool.close()


def test_dead_letters_count_towards_the_bound(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s", max_bytes=64 * KIB)
    (spool.folder / "dead-letters.ndjson").write_bytes(b"x" * 64 * KIB)
    assert spool.write(b"{}\n", urgent=ERRORS) is Written.SPOOL_FULL
    spool.close()


def test_room_is_found_again_within_a_second_after_lines_were_shipped(tmp_path: Path) -> None:
    clock = [0.0]
    spool = Spool(
        tmp_path / "s",
        max_bytes=64 * KIB,
        segment_bytes=64 * KIB,
        sync_s=None,
        monotonic=lambda: clock[0],
    )
    line = b"{" + b"x" * 1000 + b"}\n"
    while spool.write(line, urgent=ERRORS) is Written.STORED:
        pass
    os.truncate(spool.folder / spool.segment, 0)
    assert spool.write(line) is Written.SPOOL_FULL
    clock[0] = 1.0
    assert spool.write(line) is Written.STORED
    spool.close()


def test_a_write_that_ends_in_the_middle_leaves_no_half_line(tmp_path: Path) -> None:
    """The kernel cuts every file at 4,100 bytes: a write across it is short, and the rest of it fails."""
    line = b"{" + b"x" * 997 + b"}\n"
    child = os.fork()
    if child == 0:  # the bound is the process's: pytest's own output may be a file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4100, 4100))
        os._exit(_cut_short(spool_in(tmp_path / "s"), line))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.read_bytes() for path in segments(tmp_path / "s")] == [line * 4, line * 2, b""]


def _cut_short(spool: Spool, line: bytes) -> int:
    """0 if all six lines were stored, two of them in another segment, and what is too long for any is refused."""
    stored = [spool.write(line) for _ in range(6)] == [Written.STORED] * 6
    cut = spool.last_error is not None and spool.last_error.errno == errno.EFBIG
    refused = spool.write(b"x" * 5000) is Written.WRITE_ERROR
    return 0 if stored and cut and refused else 1


@contextmanager
def small_disk(tmp_path: Path, size: str) -> Iterator[Path]:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={size},mode=0700,uid={os.geteuid()}"
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        disk.chmod(0o700)
        yield disk
    finally:
        subprocess.run([*sudo, "umount", str(disk)], check=True)


def test_a_full_disk_is_answered_and_ends_when_there_is_room(tmp_path: Path) -> None:
    clock = [0.0]
    with (
        small_disk(tmp_path, "1m") as disk,
        closing(
            Spool(
                disk / "s",
                max_bytes=64 * KIB * KIB,
                segment_bytes=64 * KIB,
                sync_s=None,
                monotonic=lambda: clock[0],
            )
        ) as spool,
    ):
        filler = disk / "filler"
        filler.write_bytes(b"x" * 800 * KIB)
        answers: Counter[tuple[int, Written]] = Counter()
        stored = []
        for n in range(900):
            urgent = n % 3
            line = b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 300)
            answer = spool.write(line, urgent=urgent)
            answers[urgent, answer] += 1
            stored += [line] if answer is Written.STORED else []
        assert spool.last_error is not None
        assert spool.last_error.errno == errno.ENOSPC
        assert {answer for _, answer in answers} == {Written.STORED, Written.DISK_FULL}
        of_each = [answers[urgent, Written.STORED] for urgent in (USUAL, WARNINGS, ERRORS)]
        assert of_each[USUAL] < of_each[WARNINGS] < of_each[ERRORS]
        filler.unlink()
        clock[0] = 1.0  # the next look at the disk
        assert spool.write(b'{"after":1}\n') is Written.STORED
        spool.close()
        lines, reader = everything(spool.folder)
        assert lines == [*stored, b'{"after":1}\n']
        assert reader.torn == 0


def test_a_forked_process_writes_a_segment_of_its_own(spool: Spool) -> None:
    spool.write(b'{"from":"parent"}\n')
    child = os.fork()
    if child == 0:
        answer = spool.write(b'{"from":"child"}\n')
        os._exit(0 if answer is Written.STORED else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spool.write(b'{"from":"parent again"}\n')
    assert (
        spool.folder / spool.segment
    ).read_bytes() == b'{"from":"parent"}\n{"from":"parent again"}\n'
    assert len(segments(spool.folder)) == 2
    lines, _ = everything(spool.folder)
    assert sorted(lines) == [
        b'{"from":"child"}\n',
        b'{"from":"parent again"}\n',
        b'{"from":"parent"}\n',
    ]
    assert [path.name for path in segments(spool.folder)] == [spool.segment]


def test_a_fork_while_others_write_and_sync_never_blocks(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s", sync_s=0.001)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            spool.write(b"{}\n")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os._exit(0 if spool.write(b'{"child":1}\n') is Written.STORED else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
    for thread in threads:
        thread.join()
    spool.close()
    assert codes == [0] * 20
    lines, reader = everything(spool.folder)
    assert lines.count(b'{"child":1}\n') == 20
    assert segments(spool.folder) == []
    assert reader.torn == 0


_VICTIM = """
import sys
from pathlib import Path
from taskscope.logs.spool import Spool, Written
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 28, segment_bytes=1 << 16, sync_s=0.01)
n = 0
while True:
    if spool.write(b'{"n":%d,"x":"%s"}\\n' % (n, b"y" * (n % 900))) is Written.STORED:
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
    n += 1
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "s"
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    answered = 0
    for _ in range(random.Random(seed).randrange(50, 800)):
        answered = int(victim.stdout.readline())
    victim.kill()
    rest = victim.communicate()[0].splitlines()
    answered = int(rest[-2]) if len(rest) > 1 else answered
    lines, reader = everything(folder)
    assert len(lines) >= answered + 1
    assert [line.split(b",")[0] for line in lines] == [b'{"n":%d' % n for n in range(len(lines))]
    assert reader.torn <= 1
    assert segments(folder) == []


def test_closing_brings_everything_to_disk_and_refuses_more(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s", sync_s=0.01)
    spool.write(b"{}\n")
    spool.close()
    spool.close()
    assert spool.write(b"{}\n") is Written.WRITE_ERROR
    assert not [thread for thread in threading.enumerate() if "taskscope-spool" in thread.name]


def test_a_folder_that_is_a_link_or_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(SettingsError, match="is a symbolic link or a file; set TASKSCOPE_SPOOL"):
        spool_in(tmp_path / "link")
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(SettingsError, match="can be written by other users; set TASKSCOPE_SPOOL"):
        spool_in(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be made"):
        spool_in(tmp_path / "file" / "below")
