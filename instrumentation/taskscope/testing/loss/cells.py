"""The cells: who dies, or lies, while three processes log."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taskscope.testing.loss.world import World

__all__ = ["CELLS", "Cell"]

_SAID_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault. play: causes it in a world, and returns once it is over. dropping: whether lines may be dropped."""

    name: str
    play: Callable[[World], None]
    dropping: bool = False


def _server_down(world: World) -> None:
    """The server is away for the whole outage, and comes back."""
    shipper = world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    world.node.close()
    shipper.says("cannot be reached", within_s=_SAID_S)
    world.log_for(world.pace.outage_s)
    world.node.again()
    world.flowing()
    world.log_for(world.pace.after_s)


def _server_killed(world: World) -> None:
    """The server dies at once, mid-request as a rule, and is started again."""
    world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    world.node.kill()
    world.node.again()
    world.flowing()
    world.log_for(world.pace.after_s)


def _application_killed(world: World) -> None:
    """All processes of the application die at once; others come after them."""
    world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    for writer in [*world.writers]:
        writer.kill()
    world.write_all()
    world.log_for(world.pace.after_s)


def _shipper_killed(world: World) -> None:
    """The shipper dies five times, at moments of chance; each time another takes its place."""
    shipper = world.shipper()
    world.write_all()
    world.flowing()
    rng = random.Random(world.service)  # noqa: S311 # chance of the kind that a seed repeats
    for _ in range(5):
        world.log_for(rng.uniform(0.05, world.pace.before_s / 2))
        shipper.kill()
        shipper = world.shipper()
        world.flowing()
    world.log_for(world.pace.after_s)


def _leader_killed(world: World) -> None:
    """Of two shippers one works and one waits; the one that works dies, and the other takes over."""
    leader = world.shipper()
    world.write_all()
    world.flowing()
    world.shipper().says("waits to take over", within_s=_SAID_S)
    world.log_for(world.pace.before_s)
    leader.kill()
    world.flowing()
    world.log_for(world.pace.after_s)


def _wrong_key(world: World) -> None:
    """The password's file turns wrong while lines flow, and is mended: nothing is dropped meanwhile."""
    file = world.folder / "password"
    file.write_text(world.node.admin.password)
    more = {"ELASTICSEARCH_PASSWORD": "", "ELASTICSEARCH_PASSWORD_FILE": str(file)}
    first = world.shipper(**more)
    world.write_all()
    world.flowing()
    first.stop()
    file.write_text("wrong")
    world.shipper(**more).says("does not know this login (401)", within_s=_SAID_S)
    world.log_for(world.pace.before_s)
    file.write_text(world.node.admin.password)
    world.flowing()
    world.log_for(world.pace.after_s)


CELLS: Final = (
    Cell(name="server down", play=_server_down),
    Cell(name="server killed", play=_server_killed),
    Cell(name="application killed", play=_application_killed),
    Cell(name="shipper killed", play=_shipper_killed),
    Cell(name="leader killed", play=_leader_killed),
    Cell(name="wrong key", play=_wrong_key),
)
