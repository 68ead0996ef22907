"""A shipper whose key only writes, and a key beside it that asks what is stored: together each line is there once."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from elasticsearch import AuthorizationException, Elasticsearch

from taskscope.catalogue import Catalogue
from taskscope.logs.segments import Line
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope.testing.faultproxy import BulkProxy
from taskscope_exporters.logs.client import connect
from taskscope_exporters.logs.deadletters import FILE_NAME, Letter, bury
from taskscope_exporters.logs.inline import BackgroundShipper
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.keys import make_keys
from taskscope_exporters.logs.replay import Replayed, replay
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.shipper import Shipper, ShipperMetrics
from taskscope_exporters.logs.template import audit_spool, log_template, stream_name

until = partial(waiting.until, within_s=60, every_s=0.05)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

SERVICE, OTHER = "onlywrites", "another"
STREAM = stream_name(SERVICE, "local")
AUDIT = stream_name(SERVICE, "local", audit=True)


class Node(Protocol):
    """What the fixture of this name is, as far as these tests use it."""

    url: str
    port: int

    def settings(self, spool: Path, user: str = "admin", **more: object) -> ShipSettings: ...
    def client(self) -> Elasticsearch: ...
    def documents(self, stream: str) -> list[dict[str, object]]: ...


class Place:
    """A server with the templates and keys of a service, and of another one."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.lines = 0
        with node.client() as client:
            for service in (SERVICE, OTHER):
                install(client, log_template(service))
                make_keys(client, node.settings(folder), service, folder / service)

    def key(self, name: str, service: str = SERVICE) -> Secret:
        return Secret(file=self.folder / service / f"{name}.key")

    def settings(self, spool: Path, check_key: Secret | None, **more: object) -> ShipSettings:
        """Of a shipper whose own login is the key that only writes."""
        login: dict[str, object] = {"username": None, "password": None, "in_flight": 1}
        login |= {"api_key": self.key("shipper"), "check_key": check_key}
        return self.node.settings(spool, "admin", **(login | more))

    def fill(self, spool: Spool, count: int) -> set[int]:
        """The numbers of the lines that were written, each one's own."""
        numbers = range(self.lines, self.lines + count)
        self.lines += count
        for n in numbers:
            document = {"@timestamp": "2026-01-01T00:00:00.000000Z", "labels": {"n": n}}
            spool.write(json.dumps(document).encode() + b"\n")
        return {*numbers}

    def found(self, numbers: set[int], stream: str = STREAM) -> list[int]:
        """Those of the lines that the server holds, each as often as it is there."""
        labels = [document["labels"] for document in self.node.documents(stream)]
        held = [int(label["n"]) for label in labels if isinstance(label, dict)]
        return sorted(n for n in held if n in numbers)

    def letters(self, stream: str) -> list[tuple[int, Line]]:
        """All lines that the server holds, each with its number, as a shipper had them."""
        found: list[tuple[int, Line]] = []
        for document in self.node.documents(stream):
            name, labels = document.pop("_id"), document["labels"]
            assert isinstance(labels, dict)
            raw = json.dumps(document).encode() + b"\n"
            found.append((int(labels["n"]), Line(id=str(name), raw=raw)))
        return found

    def roll_over(self, stream: str = STREAM) -> None:
        with self.node.client() as client:
            client.indices.rollover(alias=stream)


@pytest.fixture(scope="module")
def place(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(node, tmp_path_factory.mktemp("place"))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16, sync_s=None)
    yield made
    made.close()


class Ship:
    """A shipper, what it said, and its series."""

    def __init__(self, settings: ShipSettings) -> None:
        self.said: list[str] = []
        self.metrics = ShipperMetrics(Catalogue(service=SERVICE), settings)
        self.shipper = Shipper(
            settings=settings,
            catalogue=Catalogue(service=SERVICE),
            metrics=self.metrics,
            stop=threading.Event(),
            say=self.said.append,
            rng=random.Random(1),
        )

    def in_doubt(self, result: str) -> float:
        labels = {"result": result}
        found = self.metrics.registry.get_sample_value("taskscope_logs_in_doubt_total", labels)
        return found or 0.0

    def drained(self) -> bool:
        return self.metrics.registry.get_sample_value("taskscope_spool_size_bytes") == 0

    def about_the_key(self) -> list[str]:
        return [sentence for sentence in self.said if "name the checker.key that" in sentence]


@contextmanager
def shipping(settings: ShipSettings) -> Iterator[Ship]:
    ship = Ship(settings)
    thread = threading.Thread(target=ship.shipper.run, name="taskscope-ship-test")
    thread.start()
    try:
        yield ship
    finally:
        ship.shipper.stop.set()
        thread.join(15)
        assert not thread.is_alive()


def rolled_in_doubt(
    place: Place, spool: Spool, check_key: Secret | None, **more: object
) -> tuple[Ship, set[int], int]:
    """A shipper sent lines, the answer was lost and their stream rolled over; and how many are there twice."""
    first = place.fill(spool, 1)
    with BulkProxy(place.node.port) as proxy:
        with shipping(place.settings(spool.folder, check_key, url=proxy.url, **more)) as ship:
            until(ship.drained)
            proxy.after_drop = place.roll_over
            proxy.drop_next = 1
            lines = place.fill(spool, 200)
            until(ship.drained)
        assert proxy.counts["drop_next"] == 1
    held = place.found(first | lines)
    assert {*held} == first | lines
    return ship, lines, len(held) - len(lines) - 1


def test_a_key_that_only_writes_and_one_that_asks_store_each_line_once_through_a_rollover(
    place: Place, spool: Spool
) -> None:
    ship, _, twice = rolled_in_doubt(place, spool, place.key("checker"))
    assert twice == 0
    assert ship.in_doubt("stored") > 0
    assert ship.in_doubt("unknown") == 0
    assert ship.about_the_key() == []


def test_without_a_key_that_asks_what_is_there_twice_is_counted_and_said_once(
    place: Place, spool: Spool
) -> None:
    ship, _, twice = rolled_in_doubt(place, spool, None)
    assert twice == ship.in_doubt("unknown") > 0
    (said,) = ship.about_the_key()
    assert said.endswith("makes in ELASTICSEARCH_CHECK_KEY_FILE")


WRONG: dict[str, tuple[Callable[[Place, Path], Secret], str]] = {
    "no file": (lambda _, folder: Secret(file=folder / "none"), "No such file or directory"),
    "empty": (lambda *_: Secret(file=Path("/dev/null")), "is empty"),
    "no key": (lambda *_: Secret(text="schlüssel\nX: y"), "ELASTICSEARCH_CHECK_KEY holds no API"),
    "unknown": (lambda *_: Secret(text="bm9uZTpub25l"), r"does not know the key .*\(401\)"),
    "the shipping key": (lambda place, _: place.key("shipper"), r"does not let the key .*\(403\)"),
    "another service's": (
        lambda place, _: place.key("checker", OTHER),
        r"does not let the key .*\(403\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_key_that_cannot_be_used_is_said_once_and_every_line_is_shipped(
    place: Place, spool: Spool, tmp_path: Path, what: str
) -> None:
    make, reason = WRONG[what]
    ship, _, twice = rolled_in_doubt(place, spool, make(place, tmp_path))
    assert twice == ship.in_doubt("unknown") > 0
    sentence, at_the_end = ship.about_the_key()
    assert re.search(reason, sentence)
    assert "may be stored twice" in at_the_end


def test_the_key_is_not_used_while_nothing_is_in_doubt(place: Place, spool: Spool) -> None:
    settings = place.settings(spool.folder, Secret(text="bm9uZTpub25l"))
    with shipping(settings) as ship:
        until(lambda: ship.metrics.registry.get_sample_value("taskscope_shipper_connected") == 1)
        lines = place.fill(spool, 20)
        until(ship.drained)
    assert place.found(lines) == sorted(lines)
    assert ship.said == []


def test_a_key_that_was_replaced_or_came_late_is_taken_up(
    place: Place, spool: Spool, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    lines = place.fill(spool, 1)
    # A key that was refused is tried again after the longest pause: long before others are made.
    settings = partial(
        place.settings, spool.folder, Secret(file=keys / "checker.key"), backoff_s=0.01
    )
    with BulkProxy(place.node.port) as proxy, shipping(settings(url=proxy.url)) as ship:
        until(ship.drained)
        for rotate in (False, True):
            with place.node.client() as client:
                admin = place.node.settings(tmp_path)
                make_keys(client, admin, SERVICE, keys, rotate=rotate)
            asked = ship.in_doubt("stored")
            proxy.after_drop, proxy.drop_next = place.roll_over, 1
            lines |= place.fill(spool, 100)
            until(lambda asked=asked: ship.in_doubt("stored") > asked)  # type: ignore[misc] # bound at once
            until(ship.drained)
    assert place.found(lines) == sorted(lines)
    assert ship.in_doubt("unknown") == 0
    (sentence,) = ship.about_the_key()
    assert "No such file or directory" in sentence


def test_audit_lines_shipped_by_the_service_itself_are_asked_for_too(
    place: Place, tmp_path: Path
) -> None:
    spool, audit = (
        Spool(folder, max_bytes=1 << 28, segment_bytes=1 << 16, sync_s=None)
        for folder in (tmp_path / "spool", audit_spool(tmp_path / "spool"))
    )
    said: list[str] = []
    with BulkProxy(place.node.port) as proxy:
        settings = place.settings(spool.folder, place.key("checker"), url=proxy.url)
        proxy.after_drop, proxy.drop_next = lambda: place.roll_over(AUDIT), 1
        lines = place.fill(audit, 100)
        catalogue = Catalogue(service=SERVICE)
        with BackgroundShipper(settings, catalogue=catalogue, port=None, say=said.append) as own:
            own.start()
            until(lambda: {*place.found(lines, AUDIT)} == lines and own.leads)
    spool.close()
    audit.close()
    assert proxy.counts["drop_next"] == 1
    assert place.found(lines, AUDIT) == sorted(lines)
    assert not any("may be stored twice" in sentence for sentence in said)


def test_a_replay_with_the_key_that_only_writes_asks_with_the_other(
    place: Place, spool: Spool
) -> None:
    lines = place.fill(spool, 100)
    with shipping(place.settings(spool.folder, place.key("checker"))) as ship:
        until(ship.drained)
    # As if a replay had stored them and been killed before it could say so.
    letters = [letter for letter in place.letters(STREAM) if letter[0] in lines]
    bury(spool.folder, [Letter(line=line, kind="k", reason="r") for _, line in letters], now=0.0)
    place.roll_over()
    settings = place.settings(spool.folder, place.key("checker"))
    assert replay(settings, service=SERVICE) == Replayed(known=100)
    assert place.found(lines) == sorted(lines)
    assert not (spool.folder / FILE_NAME).exists()


def test_to_look_up_with_the_shipping_key_is_refused(place: Place, spool: Spool) -> None:
    with (
        connect(place.settings(spool.folder, None)) as client,
        pytest.raises(AuthorizationException) as caught,
    ):
        client.mget(index=STREAM, ids=["x"], source=False)
    assert caught.value.meta.status == 403
