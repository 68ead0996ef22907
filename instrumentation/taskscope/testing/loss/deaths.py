"""Cells in which a process dies, ends or is locked out."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from taskscope.testing.faultproxy import BulkProxy
from taskscope.testing.loss.processes import Process
from taskscope.testing.loss.world import NO_LOGIN, World
from taskscope.testing.waiting import until

__all__ = [
    "application_killed",
    "leader_killed",
    "server_down",
    "server_killed",
    "shipper_killed",
    "wrong_key",
]

_SAID_S: Final = 60.0
_LOCK: Final = "shipper.lock"


def server_down(world: World) -> None:
    """The server is away for the whole outage, and comes back."""
    shipper = world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    world.node.stop()
    shipper.says("cannot be reached", within_s=_SAID_S)
    world.log_for(world.pace.outage_s)
    world.node.again()
    world.flowing()
    world.log_for(world.pace.after_s)


def server_killed(world: World) -> None:
    """The server dies at once, mid-request as a rule, and is started again."""
    world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    world.node.kill()
    world.node.again()
    world.flowing()
    world.log_for(world.pace.after_s)


def application_killed(world: World) -> None:
    """All processes of the application die at once; others come after them."""
    world.shipper()
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    for writer in [*world.writers]:
        writer.kill()
    world.write_all()
    world.log_for(world.pace.after_s)


def shipper_killed(world: World) -> None:
    """The shipper dies and another takes its place: at a moment of chance, after a request of its was lost, and after
    the answer to one was, before it could know."""
    proxy = world.keep(BulkProxy(world.node.port))
    world.shipper(url=proxy.url)

    def strike() -> None:
        world.shippers[-1].kill()

    proxy.after_loss = proxy.after_drop = strike
    world.write_all()
    world.flowing()
    rng = random.Random(world.service)  # noqa: S311 # chance of the kind that a seed repeats
    for fault in ("", "lose_next", "drop_next") * world.pace.repeats:
        world.log_for(rng.uniform(0.05, world.pace.before_s / 2))
        if fault:
            setattr(proxy, fault, 1)
            until(lambda: not world.shippers[-1].alive, within_s=_SAID_S, saying="a shipper dies")
        else:
            world.shippers[-1].kill()
        world.shipper(url=proxy.url)
        world.flowing()
    world.log_for(world.pace.after_s)


def leader_killed(world: World) -> None:
    """Every worker could ship and one does; it dies, lines and all, and another takes over, which dies too."""
    world.write_all(ships=True)
    world.flowing()
    for _ in range(world.pace.repeats):
        world.log_for(world.pace.before_s / 2)
        _leader(world).kill()
        world.write(ships=True)
        world.flowing()
    world.log_for(world.pace.after_s)
    world.shipper()


def _leader(world: World) -> Process:
    """The worker that holds the spool's lock, as the kernel tells. Raises AssertionError if none does."""
    lock = (world.spool / _LOCK).stat().st_ino

    def holder() -> Process | None:
        table = [row.split() for row in Path("/proc/locks").read_text().splitlines()]
        pids = {
            int(row[4]) for row in table if row[1] == "FLOCK" and int(row[5].split(":")[2]) == lock
        }
        return next((writer for writer in world.writers if writer.pid in pids), None)

    return until(holder, within_s=_SAID_S, saying="a worker leads") or world.writers[0]


def wrong_key(world: World) -> None:
    """The key that only writes is revoked while lines flow; the shipper waits, and takes up the new one by itself."""
    file = world.folder / "key"
    first = world.node.new_key()
    file.write_text(first.encoded)
    world.set_up()
    shipper = world.shipper(**NO_LOGIN, ELASTICSEARCH_API_KEY_FILE=str(file))
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    world.node.revoke(first)
    shipper.says("does not know this login (401)", within_s=_SAID_S)
    world.node.refresh(world.stream)
    stood = world.node.count(world.stream)
    world.log_for(world.pace.before_s)
    world.node.refresh(world.stream)
    if world.node.count(world.stream) != stood:
        raise AssertionError("a revoked key goes on writing; revoke the one that the shipper has")
    file.write_text(world.node.new_key().encoded)
    world.flowing()
    world.log_for(world.pace.after_s)
