"""The small disk is full when it says so, for chosen processes alone; the wall clock is set, and only that one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from taskscope.testing.clock import wall_clock
from taskscope.testing.smalldisk import small_disk

MEBI = 1024 * 1024
WRITE = "import sys; open(sys.argv[1], 'wb', buffering=0).write(bytes(int(sys.argv[2])))"
TELL = "import time; print(time.time(), time.monotonic())"


def test_a_small_disk_is_full_after_its_size_and_has_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, size=2 * MEBI) as disk:
        words = [*disk.prefix, sys.executable, "-c", WRITE]
        disk.fill(left=64 * 1024)
        assert disk.free == 64 * 1024
        full = subprocess.run(
            [*words, str(folder / "a"), str(MEBI)], check=False, capture_output=True
        )
        assert (disk.seen / "a").stat().st_size == 64 * 1024
        assert full.returncode == 0  # the system wrote what there was room for
        full = subprocess.run([*words, str(folder / "b"), "1"], check=False, capture_output=True)
        assert b"No space left on device" in full.stderr
        disk.clear()
        subprocess.run([*words, str(folder / "b"), str(MEBI)], check=True)
        assert not list(folder.iterdir())
    assert not list(folder.iterdir())
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def test_the_wall_clock_of_a_process_is_set_and_its_other_clock_is_not(tmp_path: Path) -> None:
    clock = wall_clock(tmp_path)

    def told() -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", TELL],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **clock.environ},
        )
        return [float(part) for part in done.stdout.split()]

    before = told()
    clock.step(-3600)
    after = told()
    assert -3600 <= after[0] - before[0] < -3500
    assert 0 < after[1] - before[1] < 100
