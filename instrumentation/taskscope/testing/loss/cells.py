"""The cells of the matrix, in the order in which they are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taskscope.testing.loss import deaths, lies, machine
from taskscope.testing.loss.world import World

__all__ = ["CELLS", "Cell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault. play: causes it in a world, and returns once it is over. dropping: whether lines may be dropped.

    takes_server: whether the server is away meanwhile, for others as well. long: whether a short form leaves it out,
    since another cell shows much the same in less time.
    """

    name: str
    play: Callable[[World], None]
    dropping: bool = False
    takes_server: bool = False
    long: bool = False


CELLS: Final = (
    Cell(name="server down", play=deaths.server_down, takes_server=True),
    Cell(name="server killed", play=deaths.server_killed, takes_server=True),
    Cell(name="application killed", play=deaths.application_killed),
    Cell(name="shipper killed", play=deaths.shipper_killed),
    Cell(name="leader killed", play=deaths.leader_killed),
    Cell(name="rollover in doubt", play=lies.rollover),
    Cell(name="killed in doubt", play=lies.killed_in_doubt),
    Cell(name="429 and 503", play=lies.overloaded),
    Cell(name="mapping conflict", play=lies.conflict),
    Cell(name="wrong key", play=deaths.wrong_key),
    Cell(name="disk full", play=machine.disk_full, dropping=True),
    Cell(name="clock set back", play=machine.clock_set_back),
    Cell(name="lying server", play=lies.lying, long=True),
    Cell(name="slow and cut", play=lies.cut, long=True),
    Cell(name="half open", play=lies.half_open, long=True),
)
