"""Each call to the disk fails once, wherever in a run of 500 lines that is: nothing that was stored is lost."""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from taskscope.logs.segments import SpoolReader
from taskscope.logs.spool import ERRORS, Spool, Written
from taskscope.testing.disks import Platter, SimulatedDisk

FOLDER: Final = Path("/spool")
LINES: Final = 500
SYNC_EVERY: Final = 10


class Driven(Spool):
    """A spool whose thread is the test: it syncs when it is told to."""

    def _start(self, every_s: float) -> threading.Thread | None:  # noqa: ARG002 # as the real one
        return threading.current_thread()


class Run:
    """What was answered of 500 lines, and what a reader finds after the process was killed, or the power failed."""

    def __init__(self, plant: Callable[[SimulatedDisk], None]) -> None:
        self.platter = Platter()
        self.disk = self.platter.process()
        self.answers: Counter[Written] = Counter()
        self.stored: list[bytes] = []
        self.safe: list[bytes] = []
        self.told: list[OSError] = []
        spool = Driven(
            FOLDER,
            max_bytes=1 << 20,
            segment_bytes=1 << 10,
            monotonic=lambda: 0.0,
            failed=self.told.append,
            disk=self.disk,
        )
        plant(self.disk)
        unsynced: list[bytes] = []
        for n in range(LINES):
            line = b'{"n":%d,"x":"%s"}\n' % (n, b"x" * (n % 50))
            answer = spool.write(line)
            self.answers[answer] += 1
            if answer is Written.STORED:
                self.stored.append(line)
                unsynced.append(line)
            if n % SYNC_EVERY == SYNC_EVERY - 1:
                self.safe += unsynced if spool.sync() else []
                unsynced.clear()

    def found(self, *, power_lost: bool = False, seed: int = 0) -> tuple[list[bytes], SpoolReader]:
        if power_lost:
            self.platter.lose_power(random.Random(seed))
        else:
            self.disk.kill()
        reader = SpoolReader(FOLDER, disk=self.platter.process())
        lines: list[bytes] = []
        ids: set[tuple[str, int]] = set()
        while (batch := reader.batch(max_lines=100, max_bytes=1 << 20)) is not None:
            lines += [raw + b"\n" for raw in batch.raws]
            ids |= {(batch.stem, offset) for offset in batch.offsets}
            reader.acknowledge(batch)
        assert len(ids) == len(lines)
        return lines, reader


class Always(dict[tuple[str, int], int]):
    """The calls of these names fail, each time."""

    def __init__(self, error: int, *names: str) -> None:
        super().__init__()
        self.error = error
        self.names = names

    def pop(self, key: tuple[str, int], *_: object) -> int:
        return self.error if key[0] in self.names else 0


def calls_of_a_run(call: str) -> int:
    return Run(lambda _: None).disk.calls[call]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync", "rename", "open"])
def test_a_call_that_fails_loses_no_stored_line_whichever_it_is(call: str, error: int) -> None:
    count = calls_of_a_run(call)
    assert count >= 12
    for number in range(1, count + 1):
        run = Run(lambda disk, number=number: disk.fail.update({(call, number): error}))  # type: ignore[misc] # its number
        lines, reader = run.found()
        assert lines == run.stored, f"{call} {number}"
        assert reader.torn == 0
        assert run.answers.total() == LINES
        # Only a full disk, or one that refuses a file's very first line, costs one: this line, and it is counted.
        assert run.answers[Written.STORED] >= LINES - (call == "write"), f"{call} {number}"


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename"])
def test_what_was_synced_outlives_the_power_whichever_call_failed_before(call: str) -> None:
    for number in range(1, calls_of_a_run(call) + 1):
        run = Run(lambda disk, number=number: disk.fail.update({(call, number): errno.EIO}))  # type: ignore[misc] # its number
        lines, _ = run.found(power_lost=True, seed=number)
        assert set(run.safe) <= set(lines) <= set(run.stored), f"{call} {number}"
        assert len(run.safe) == LINES, "all came to disk, in a file of its own if need be"


def test_a_write_that_ends_early_is_completed_whichever_it_is() -> None:
    for number in range(1, LINES + 1):
        run = Run(lambda disk, number=number: disk.short.update({number: number % 11}))  # type: ignore[misc] # its number
        lines, reader = run.found()
        assert lines == run.stored
        assert len(lines) == LINES
        assert reader.torn == 0


def test_half_a_line_on_a_full_disk_is_taken_back_whichever_it_is() -> None:
    for number in range(1, LINES + 1):

        def plant(disk: SimulatedDisk, number: int = number) -> None:
            disk.short[number] = 5
            disk.fail["write", number + 1] = errno.ENOSPC

        run = Run(plant)
        lines, reader = run.found()
        assert lines == run.stored
        assert run.answers == {Written.STORED: LINES - 1, Written.DISK_FULL: 1}
        assert reader.torn == 0


def test_half_a_line_that_cannot_be_taken_back_is_dropped_by_the_reader() -> None:
    def plant(disk: SimulatedDisk) -> None:
        disk.short[200] = 5
        disk.fail["write", 201] = errno.ENOSPC
        disk.fail["ftruncate", 1] = errno.EIO

    run = Run(plant)
    lines, reader = run.found()
    assert lines == run.stored
    assert run.answers == {Written.STORED: LINES - 1, Written.DISK_FULL: 1}
    assert reader.torn == 1


def test_a_failed_sync_is_told_and_what_it_held_is_read_again_into_a_file_of_its_own() -> None:
    run = Run(lambda disk: disk.fail.update({("fdatasync", 7): errno.EIO}))
    assert [error.errno for error in run.told] == [errno.EIO]
    assert run.found(power_lost=True)[0] == run.stored


def test_a_sync_that_fails_twice_promises_nothing_and_loses_nothing_while_the_power_lasts() -> None:
    def plant(disk: SimulatedDisk) -> None:
        disk.fail["fdatasync", 7] = errno.EIO
        disk.fail["fdatasync", 8] = errno.EIO

    run = Run(plant)
    assert len(run.told) == 2
    assert len(run.safe) == LINES - SYNC_EVERY
    assert run.found()[0] == run.stored
    run = Run(plant)
    assert set(run.found(power_lost=True)[0]) >= set(run.safe)


def test_a_disk_that_fails_for_ever_answers_each_line_and_holds_few_files() -> None:
    def plant(disk: SimulatedDisk) -> None:
        disk.fail = Always(errno.EIO, "write", "fdatasync", "fsync")

    run = Run(plant)
    assert run.answers == {Written.WRITE_ERROR: LINES}
    assert run.disk.descriptors <= 3


def test_without_descriptors_lines_go_on_into_the_segment_that_is_open() -> None:
    def plant(disk: SimulatedDisk) -> None:
        disk.fail = Always(errno.EMFILE, "open")

    run = Run(plant)
    assert run.answers == {Written.STORED: LINES}
    assert len(run.safe) == LINES
    lines, _ = run.found()
    assert lines == run.stored


def test_a_disk_that_is_full_keeps_what_is_left_for_errors() -> None:
    platter = Platter(capacity=64 * 1024)
    spool = Driven(
        FOLDER,
        max_bytes=1 << 20,
        segment_bytes=1 << 20,
        monotonic=lambda: 0.0,
        disk=platter.process(),
    )
    line = b'{"x":"%s"}\n' % (b"x" * 100)
    ends = []
    for urgent in range(ERRORS + 1):
        while (answer := spool.write(line, urgent=urgent)) is Written.STORED:
            pass
        assert answer is Written.DISK_FULL
        ends.append(platter.free())
    reserve = platter.capacity // 32
    assert 2 * reserve <= ends[0] < 2 * reserve + len(line)
    assert reserve <= ends[1] < reserve + len(line)
    assert ends[2] < len(line)
