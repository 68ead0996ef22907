"""Cells in which the server, or the way to it, says less than the truth."""

from __future__ import annotations

import json
from typing import Final

from taskscope.testing.faultproxy import BulkFaults, BulkProxy, TcpProxy
from taskscope.testing.loss.processes import Process
from taskscope.testing.loss.world import World
from taskscope.testing.waiting import until

__all__ = ["conflict", "cut", "half_open", "killed_in_doubt", "lying", "overloaded", "rollover"]

_SAID_S: Final = 60.0
_DOUBTS: Final = 3
_ODD_EVERY: Final = "20"
_LETTERS: Final = "dead-letters.ndjson"


def rollover(world: World) -> None:
    """A batch is stored, its answer is lost, the stream rolls over, and the batch is sent again; three times."""
    proxy = world.keep(BulkProxy(world.node.port))
    proxy.after_drop = lambda: world.node.roll_over(world.stream)
    world.shipper(url=proxy.url)
    world.write_all()
    world.flowing()
    for doubt in range(1, _DOUBTS + 1):
        world.log_for(world.pace.before_s / _DOUBTS)
        proxy.drop_next = 1
        until(
            lambda doubt=doubt: proxy.counts["drop_next"] >= doubt,  # type: ignore[misc] # bound at once
            within_s=_SAID_S,
            saying="an answer is lost",
        )
        world.flowing()
    world.log_for(world.pace.after_s)
    world.note = f"{proxy.counts['drop_next']} rollovers in doubt"


def killed_in_doubt(world: World) -> None:
    """As before, and the shipper dies before it could know that its batch is in doubt; the next one has to."""
    proxy = world.keep(BulkProxy(world.node.port))
    shippers = [world.shipper(url=proxy.url)]

    struck: list[Process] = []

    def strike() -> None:
        shippers[-1].kill()
        world.node.roll_over(world.stream)
        struck.append(shippers[-1])

    proxy.after_drop = strike
    world.write_all()
    world.flowing()
    for _ in range(world.pace.repeats):
        world.log_for(world.pace.before_s / world.pace.repeats)
        proxy.drop_next = 1
        until(
            lambda: struck[-1:] == shippers[-1:], within_s=_SAID_S, saying="a shipper dies in doubt"
        )
        shippers.append(world.shipper(url=proxy.url))
        world.flowing()
    world.log_for(world.pace.after_s)


def overloaded(world: World) -> None:
    """The server takes some lines of a request and refuses others, or the whole of it, by 429 and 503."""
    proxy = world.keep(BulkProxy(world.node.port))
    world.shipper(url=proxy.url)
    world.write_all()
    world.flowing()
    proxy.faults = BulkFaults(p429=0.2, p503=0.05, whole_429=0.2, whole_503=0.1)
    world.log_for(world.pace.before_s + world.pace.after_s)
    proxy.faults = BulkFaults()
    world.note = ", ".join(
        f"{name} {proxy.counts[name]:,}" for name in ("p429", "p503", "whole_429", "whole_503")
    )


def lying(world: World) -> None:
    """Answers are lost after the lines were stored, requests before they were; others come late or refuse at random."""
    proxy = world.keep(BulkProxy(world.node.port))
    world.shipper(url=proxy.url)
    world.write_all()
    world.flowing()
    proxy.faults = BulkFaults(p429=0.1, p503=0.02, drop_answer=0.1, slow=0.1, slow_s=0.5)
    for _ in range(_DOUBTS):
        proxy.drop_next = proxy.lose_next = 1
        world.log_for((world.pace.before_s + world.pace.after_s) / _DOUBTS)
    proxy.faults = BulkFaults()
    until(
        lambda: not proxy.drop_next and not proxy.lose_next,
        within_s=_SAID_S,
        saying="the last answer and request are lost",
    )
    world.flowing()
    lost = proxy.counts["drop_next"] + proxy.counts["drop_answer"]
    world.note = f"{lost} answers and {proxy.counts['lose_next']} requests lost, {proxy.counts['p429']} × 429"


def cut(world: World) -> None:
    """The way to the server is slow, and its connections are cut again and again, mid-request and mid-answer."""
    proxy = world.keep(TcpProxy(to_port=world.node.port))
    world.shipper(url=proxy.url)
    world.write_all()
    world.flowing()
    cuts = 10
    for _ in range(cuts):
        proxy.latency(0.01, jitter_s=0.01)
        world.log_for(world.pace.before_s / cuts)
        proxy.cut()
    proxy.heal()
    world.flowing()
    world.log_for(world.pace.after_s)
    world.note = f"{proxy.counts['resets']} connections reset"


def half_open(world: World) -> None:
    """Requests reach the server and no answer comes back, until the shipper gives up waiting."""
    proxy = world.keep(TcpProxy(to_port=world.node.port))
    shipper = world.shipper(url=proxy.url)
    world.write_all()
    world.flowing()
    world.log_for(world.pace.before_s)
    proxy.half()
    shipper.says("did not answer within", within_s=_SAID_S)
    proxy.heal()
    world.flowing()
    world.log_for(world.pace.after_s)


def conflict(world: World) -> None:
    """Each twentieth line has a text where the index wants a number; then the mapping is mended and they are sent."""
    world.node.map_action(world.service, "long")
    world.set_up()
    world.shipper()
    world.write_all("--odd-every", _ODD_EVERY)
    world.flowing()
    world.log_for(world.pace.before_s + world.pace.after_s)
    world.settle()
    letters = _letters(world)
    if not letters:
        raise AssertionError("no line became a dead letter; see whether the mapping holds")
    arrived = world.node.count(world.stream)
    world.node.map_action(world.service, "keyword")
    world.node.roll_over(world.stream)
    world.replay_letters()
    world.arrived(arrived + letters)
    world.note = f"{letters:,} dead letters sent again"


def _letters(world: World) -> int:
    path = world.seen / _LETTERS
    if not path.exists():
        return 0
    return sum(bool(json.loads(text)) for text in path.read_text().splitlines())
