"""The spool while things happen around it: clocks are set, files vanish, disks hang, processes fork and end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskscope.logs import spool as spool_module
from taskscope.logs.backlog import Backlog
from taskscope.logs.disk import MACHINE
from taskscope.logs.segments import SpoolReader
from taskscope.logs.spool import Spool, Written
from taskscope.testing.waiting import until


class Clock:
    """The time of day in nanoseconds, which anybody may set, and seconds that only pass."""

    def __init__(self) -> None:
        self.day = 1_750_000_000_000_000_000
        self.passed = 100.0

    def now(self) -> int:
        return self.day

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Iterator[Spool]:
    with closing(
        Spool(
            tmp_path / "spool",
            max_bytes=1 << 20,
            segment_bytes=200,
            sync_s=None,
            now=clock.now,
            monotonic=clock.monotonic,
        )
    ) as made:
        yield made


def line(n: int) -> bytes:
    return b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 60)


def everything(folder: Path) -> list[bytes]:
    reader = SpoolReader(folder)
    found: list[bytes] = []
    while (batch := reader.batch(max_lines=1000, max_bytes=1 << 20)) is not None:
        found += [each.raw for each in batch.lines]
        reader.acknowledge(batch)
    return found


@pytest.mark.parametrize("to", [0, 1_749_990_000, 2_147_483_648, 4_102_444_800])
def test_a_clock_that_is_set_changes_no_order(spool: Spool, clock: Clock, to: int) -> None:
    for n in range(30):
        if n == 10:
            clock.day = to * 1_000_000_000
        assert spool.write(line(n)) is Written.STORED
    names = sorted(path.name for path in spool.folder.glob("*.seg"))
    assert [int(name[-10:-4], 16) for name in names] == list(range(len(names)))
    assert everything(spool.folder) == [line(n) for n in range(30)]


def test_the_age_of_a_line_grows_with_time_whatever_the_clock_is_set_to(spool: Spool) -> None:
    spool.write(b'{"@timestamp":"2026-01-01T00:00:00.000000Z"}\n')
    times = {"day": 1767225660.0, "passed": 0.0}
    backlog = Backlog(spool.folder, now=lambda: times["day"], monotonic=lambda: times["passed"])
    ages = [backlog.look().oldest_s]
    for day in (0.0, 4e9, 1767225660.0):
        times = {"day": day, "passed": times["passed"] + 10}
        ages.append(backlog.look().oldest_s)
    assert ages == [60, 70, 80, 90]
    everything(spool.folder)
    assert backlog.look().oldest_s == 0


def test_a_segment_that_was_deleted_is_left_within_a_second(spool: Spool, clock: Clock) -> None:
    spool.write(b"{}\n")
    shutil.rmtree(spool.folder)
    clock.passed += 2
    spool.tend()  # as its thread does
    for n in range(12):
        assert spool.write(line(n)) is Written.STORED
    assert everything(spool.folder) == [line(n) for n in range(12)]
    assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_a_descriptor_that_somebody_closed_is_left_and_not_closed_again(
    tmp_path: Path, spool: Spool
) -> None:
    spool.write(line(1))
    number = spool._segment.fd
    os.close(number)
    assert spool.write(line(2)) is Written.STORED
    assert (
        spool._segment.fd == number
    )  # the lowest that is free: nothing of it was closed a second time
    assert spool.write(line(3)) is Written.STORED
    assert sorted(everything(spool.folder)) == [line(1), line(2), line(3)]


def test_a_descriptor_that_is_anothers_by_now_gets_no_line_after_a_second(
    tmp_path: Path, spool: Spool, clock: Clock
) -> None:
    spool.write(line(1))
    number = spool._segment.fd
    theirs = os.open(tmp_path / "theirs", os.O_CREAT | os.O_RDWR)
    os.dup2(theirs, number)
    clock.passed += 2
    spool.tend()  # as its thread does
    assert spool.write(line(2)) is Written.STORED
    assert (tmp_path / "theirs").read_bytes() == b""
    os.fstat(number)
    os.close(number)
    os.close(theirs)
    assert sorted(everything(spool.folder)) == [line(1), line(2)]


class Hanging:
    """The machine's disk, whose syncs end when they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.answer = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(MACHINE, name)

    def fdatasync(self, fd: int) -> None:
        self.begun.set()
        assert self.answer.wait(30)
        MACHINE.fdatasync(fd)


def test_a_disk_that_hangs_holds_up_neither_lines_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_CLOSE_S", 0.1)
    disk = Hanging()
    spool = Spool(
        tmp_path / "s",
        max_bytes=1 << 20,
        segment_bytes=200,
        sync_s=0.001,
        disk=disk,  # type: ignore[arg-type] # the rest is the machine's
    )
    spool.write(line(0))
    assert disk.begun.wait(10)
    stored = [spool.write(line(n)) for n in range(1, 200)]
    assert stored == [Written.STORED] * 199
    held = len(list(Path("/proc/self/fd").iterdir()))
    assert len(list(spool.folder.glob("*.seg"))) <= 18
    spool.close()
    disk.answer.set()
    until(lambda: not any("taskscope-spool" in each.name for each in threading.enumerate()))
    assert len(list(Path("/proc/self/fd").iterdir())) < held - 10
    assert everything(spool.folder) == [line(n) for n in range(200)]


def test_in_a_child_of_a_process_that_closed_its_spool_any_thread_may_log(spool: Spool) -> None:
    spool.close()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        answers: list[Written] = []
        thread = threading.Thread(target=lambda: answers.append(spool.write(b"{}\n")))
        thread.start()
        thread.join()
        os._exit(0 if answers == [Written.WRITE_ERROR] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Interrupted:
    """The machine's disk, where a signal comes right after each call that changes something."""

    def __init__(self) -> None:
        self.within = True

    def __getattr__(self, name: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(MACHINE, name)
        return self.after(call) if name in {"open", "write", "rename", "flock"} else call

    def after(self, call: Callable[..., object]) -> Callable[..., object]:
        def interrupted(*given: object) -> object:
            answer = call(*given)
            if not self.within:
                self.within = True
                signal.raise_signal(signal.SIGUSR1)
                self.within = False
            return answer

        return interrupted


def test_a_signal_handler_may_log_wherever_a_line_is_being_written(tmp_path: Path) -> None:
    answers: list[Written] = []
    disk = Interrupted()
    spool = Spool(
        tmp_path / "s",
        max_bytes=1 << 20,
        segment_bytes=200,
        sync_s=None,
        disk=disk,  # type: ignore[arg-type] # the rest is the machine's
    )
    before = signal.signal(
        signal.SIGUSR1, lambda *_: answers.append(spool.write(b'{"from":"handler"}\n'))
    )
    disk.within = False
    try:
        answers += [spool.write(line(n)) for n in range(100)]
    finally:
        signal.signal(signal.SIGUSR1, before)
    spool.close()
    found = everything(spool.folder)
    assert set(answers) == {Written.STORED}
    assert sorted(each for each in found if b"handler" not in each) == sorted(map(line, range(100)))
    assert found.count(b'{"from":"handler"}\n') == len(answers) - 100
    assert len(answers) > 200


_ENDING = """
import atexit, os, signal, sys, threading
from pathlib import Path
from taskscope.logs.spool import Spool
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 28, segment_bytes=1 << 16, sync_s=0.01)
def forever():
    while True:
        spool.write(b'{"from":"thread"}\\n')
threading.Thread(target=forever, daemon=True).start()
atexit.register(lambda: spool.write(b'{"from":"last"}\\n'))
if sys.argv[2] == "closed":
    atexit.register(spool.close)
spool.write(b'{"from":"first"}\\n')
if sys.argv[2] == "signal":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[2] == "hard":
    os._exit(0)
sys.exit(0)
"""


@pytest.mark.parametrize("how", ["plain", "closed", "signal", "hard"])
def test_a_process_that_ends_while_it_logs_says_nothing_and_leaves_its_lines(
    tmp_path: Path, how: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _ENDING, str(tmp_path / "s"), how],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    found = everything(tmp_path / "s")
    assert b'{"from":"first"}\n' in found
    assert found.count(b'{"from":"last"}\n') == (how in {"plain", "signal"})
    assert list((tmp_path / "s").iterdir()) == []
