"""Cells in which the machine fails: its disk is full, its clock is set."""

from __future__ import annotations

from typing import Final

from taskscope.testing.clock import wall_clock
from taskscope.testing.loss.outcome import DROPPED
from taskscope.testing.loss.world import World
from taskscope.testing.smalldisk import small_disk
from taskscope.testing.waiting import until

__all__ = ["clock_set_back", "disk_full"]

_DISK_BYTES: Final = 8 * 1024 * 1024
_ROOM_BYTES: Final = 1024 * 1024
_FULL_S: Final = 60.0
_RESUMES_S: Final = 5.0
_HOUR_S: Final = 3600


def disk_full(world: World) -> None:
    """The spool's disk of 8 MiB is full while all log; the shipper comes, then room: what was dropped was told."""
    folder = world.folder / "disk"
    folder.mkdir()
    disk = world.keep(small_disk(folder, size=_DISK_BYTES))
    disk.fill(left=_ROOM_BYTES)
    world.use(disk)
    world.write_all()
    until(
        lambda: all(path.stat().st_size for path in world.records.glob(f"*{DROPPED}")),
        within_s=_FULL_S,
        saying="every writer drops lines",
    )
    world.log_for(world.pace.before_s)
    world.shipper()
    world.flowing()
    disk.clear()
    stored = world.stored()
    until(lambda: world.stored() > stored, within_s=_RESUMES_S, saying="lines are stored again")
    world.flowing()
    world.log_for(world.pace.after_s)


def clock_set_back(world: World) -> None:
    """The application's clock is set back by an hour, forth by two, and back for good; others start meanwhile."""
    clock = wall_clock(world.folder)
    world.shipper()
    world.write_all(environ=clock.environ)
    world.flowing()
    for ahead in (-_HOUR_S, _HOUR_S, -2 * _HOUR_S):
        world.log_for(world.pace.before_s / 2)
        clock.step(ahead)
        world.flowing()
    world.writers[0].stop()
    world.write(environ=clock.environ)
    world.log_for(world.pace.after_s)
    world.note = f"the lines tell of {world.node.hours(world.stream)} hours"
