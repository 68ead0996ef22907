"""Answers that never come, on a real Elasticsearch: what is in doubt is asked for, and is there once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from elasticsearch import Elasticsearch

from taskscope.catalogue import Catalogue
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope.testing.faultproxy import BulkFaults, BulkProxy, TcpProxy
from taskscope_exporters.logs.deadletters import FILE_NAME, TAKEN_NAME
from taskscope_exporters.logs.replay import Replayed, replay
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Shipper, ShipperMetrics

until = partial(waiting.until, within_s=90, every_s=0.05)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

KILLED = """
import sys, threading
from pathlib import Path
from taskscope.catalogue import Catalogue
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import Secret, ShipSettings
settings = ShipSettings(spool=Path(sys.argv[1]), url=sys.argv[2], username=sys.argv[3],
                        password=Secret(text=sys.argv[4]), in_flight=1)
run(settings, catalogue=Catalogue(service=sys.argv[5]), stop=threading.Event(), port=None)
"""


class Node(Protocol):
    """What the fixture of this name is, as far as these tests use it."""

    url: str
    port: int

    def settings(self, spool: Path, user: str = "admin", **more: object) -> ShipSettings: ...
    def client(self) -> Elasticsearch: ...
    def documents(self, stream: str) -> list[dict[str, object]]: ...
    def count(self, stream: str) -> int: ...


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16, sync_s=None)
    yield made
    made.close()


class Ship:
    """A shipper in a thread, what it said, and its series."""

    def __init__(self, settings: ShipSettings, service: str) -> None:
        catalogue = Catalogue(service=service)
        self.said: list[str] = []
        self.metrics = ShipperMetrics(catalogue, settings)
        self.shipper = Shipper(
            settings=settings,
            catalogue=catalogue,
            metrics=self.metrics,
            stop=threading.Event(),
            say=self.said.append,
            rng=random.Random(1),
        )

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"taskscope_logs_{name}_total", labels) or 0.0

    def drained(self) -> bool:
        return self.metrics.registry.get_sample_value("taskscope_spool_size_bytes") == 0


@contextmanager
def shipping(settings: ShipSettings, service: str) -> Iterator[Ship]:
    ship = Ship(settings, service)
    thread = threading.Thread(target=ship.shipper.run, name="taskscope-ship-test")
    thread.start()
    try:
        yield ship
    finally:
        ship.shipper.stop.set()
        thread.join(15)
        assert not thread.is_alive()


def fill(spool: Spool, count: int, *, start: int = 0) -> list[int]:
    for n in range(start, start + count):
        document = {"@timestamp": "2026-01-01T00:00:00.000000Z", "message": "m", "labels": {"n": n}}
        spool.write(json.dumps(document).encode() + b"\n")
    return [*range(start, start + count)]


def found(node: Node, service: str) -> list[int]:
    """The numbers of the lines that the server holds, each as often as it is there."""
    labels = [document["labels"] for document in node.documents(f"logs-{service}-local")]
    return sorted(int(label["n"]) for label in labels if isinstance(label, dict))


def begun(node: Node, spool: Spool, service: str, user: str = "admin") -> None:
    """The stream is there with a first line, and this folder's shipper has seen its backing index."""
    fill(spool, 1)
    with shipping(node.settings(spool.folder), service):
        until(lambda: node.count(f"logs-{service}-local") == 1)


def roll_over(node: Node, service: str) -> None:
    with node.client() as client:
        client.indices.rollover(alias=f"logs-{service}-local")


def test_a_rollover_while_the_answer_is_lost_stores_nothing_twice(node: Node, spool: Spool) -> None:
    begun(node, spool, "rolled")
    with BulkProxy(node.port) as proxy:
        proxy.drop_next, proxy.after_drop = 1, lambda: roll_over(node, "rolled")
        lines = fill(spool, 1500, start=1)
        with shipping(node.settings(spool.folder, "asker", url=proxy.url), "rolled") as ship:
            until(ship.drained)
            assert ship.value("in_doubt", result="stored") >= 500
            assert ship.value("in_doubt", result="unknown") == 0
            assert ship.value("shipped") + ship.value("duplicates") == 1500
    assert proxy.counts["drop_next"] == 1
    assert found(node, "rolled") == [0, *lines]


def test_a_login_that_may_not_ask_says_so_once_and_counts_what_may_be_there_twice(
    node: Node, spool: Spool
) -> None:
    begun(node, spool, "blind")
    with BulkProxy(node.port) as proxy:
        proxy.after_drop = lambda: roll_over(node, "blind")
        settings = node.settings(spool.folder, "shipper", url=proxy.url, in_flight=1)
        with shipping(settings, "blind") as ship:
            fill(spool, 1, start=1)
            until(ship.drained)
            for start in (2, 102):
                proxy.drop_next = 1
                fill(spool, 100, start=start)
                until(ship.drained)
            unknown = ship.value("in_doubt", result="unknown")
    twice = sum(count - 1 for count in Counter(found(node, "blind")).values())
    assert twice == unknown > 0
    assert sum("may be stored twice" in sentence for sentence in ship.said) == 1


def test_a_shipper_killed_before_the_answer_and_a_rollover_store_nothing_twice(
    node: Node, spool: Spool
) -> None:
    begun(node, spool, "died")
    lines = fill(spool, 900, start=1)
    settings = node.settings(spool.folder, "asker")
    assert settings.password is not None
    with BulkProxy(node.port) as proxy:
        words = (spool.folder, proxy.url, "asker", settings.password.text, "died")
        proxy.drop_next = 1
        over = threading.Event()

        def kill() -> None:
            shipper.send_signal(signal.SIGKILL)
            shipper.wait()
            roll_over(node, "died")
            over.set()

        proxy.after_drop = kill
        shipper = subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, words)], stderr=subprocess.DEVNULL
        )
        assert over.wait(120)
    with shipping(settings, "died") as ship:
        until(ship.drained)
        assert ship.value("in_doubt", result="stored") >= 500
    assert found(node, "died") == [0, *lines]


@pytest.mark.parametrize("fault", ["half", "reset_after"])
def test_an_answer_that_is_late_or_half_is_asked_for(node: Node, spool: Spool, fault: str) -> None:
    service = f"late{fault[0]}"
    begun(node, spool, service)
    with TcpProxy(to_port=node.port) as proxy:
        settings = node.settings(spool.folder, "asker", url=proxy.url, timeout_s=3.0)
        with shipping(settings, service) as ship:
            fill(spool, 1, start=1)
            until(ship.drained)
            if fault == "half":
                proxy.half()
            else:
                # Of the connections that are there, and of new ones: their answers end in the middle.
                proxy.cut()
                proxy.reset_after(200)
            lines = fill(spool, 700, start=2)
            until(lambda: node.count(f"logs-{service}-local") >= 100)
            until(lambda: ship.value("retries", reason="unreachable") >= 1)
            roll_over(node, service)
            proxy.heal()
            until(ship.drained)
    assert found(node, service) == [0, 1, *lines]


@pytest.mark.parametrize("seed", [1, 2])
def test_refusals_of_every_kind_lose_nothing_and_only_those_lines_go_again(
    node: Node, spool: Spool, seed: int
) -> None:
    service = f"refused{seed}"
    lines = fill(spool, 3000)
    faults = BulkFaults(p429=0.2, p503=0.05, p400=0.02, whole_429=0.1)
    with (
        BulkProxy(node.port, faults=faults, seed=seed) as proxy,
        shipping(node.settings(spool.folder, url=proxy.url, backoff_s=0.2), service) as ship,
    ):
        until(ship.drained)
        dead = ship.value("dead_letters", error_type="document_parsing_exception")
        letters = (spool.folder / FILE_NAME).read_text().splitlines()
        assert {json.loads(letter)["id"] for letter in letters} == proxy.refused
        assert dead == len(letters) == len(proxy.refused) > 0
        again = proxy.counts["p429"] + proxy.counts["p503"]
        assert proxy.counts["lines"] == 3000 + again
    there = found(node, service)
    assert len(there) == len({*there}) == 3000 - len(letters)
    assert {*there} <= {*lines}
    assert replay(node.settings(spool.folder), service=service) == Replayed(stored=len(letters))
    assert found(node, service) == lines
    assert not (spool.folder / FILE_NAME).exists()
    assert replay(node.settings(spool.folder), service=service) == Replayed()


def test_a_replay_that_was_cut_off_loses_no_letter_and_stores_none_twice(
    node: Node, spool: Spool
) -> None:
    lines = fill(spool, 300)
    with (
        BulkProxy(node.port, faults=BulkFaults(p400=1.0)) as proxy,
        shipping(node.settings(spool.folder, url=proxy.url), "letters") as ship,
    ):
        until(ship.drained)
        proxy.faults, proxy.drop_next = BulkFaults(), 1
        with pytest.raises(Exception, match="cannot be reached"):
            replay(node.settings(spool.folder, url=proxy.url), service="letters")
    assert len((spool.folder / FILE_NAME).read_text().splitlines()) == 300
    roll_over(node, "letters")
    # As if it had been killed: what was taken lies there still, and half a letter at the end.
    (spool.folder / FILE_NAME).rename(spool.folder / TAKEN_NAME)
    with (spool.folder / TAKEN_NAME).open("ab") as file:
        file.write(b'{"id":"half')
    assert replay(node.settings(spool.folder), service="letters") == Replayed(known=300, strange=1)
    assert found(node, "letters") == lines
    assert (spool.folder / FILE_NAME).read_text() == '{"id":"half\n'


def test_a_shipper_killed_early_acknowledged_nothing_that_did_not_arrive(
    node: Node, spool: Spool
) -> None:
    begun(node, spool, "early")
    lines = fill(spool, 500, start=1)
    settings = node.settings(spool.folder, "asker")
    assert settings.password is not None
    with BulkProxy(node.port) as proxy:
        proxy.lose_next = 1_000_000
        words = (spool.folder, proxy.url, "asker", settings.password.text, "early")
        shipper = subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, words)], stderr=subprocess.DEVNULL
        )
        until(lambda: proxy.counts["lose_next"])
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
    with shipping(settings, "early") as ship:
        until(ship.drained)
    assert found(node, "early") == [0, *lines]
