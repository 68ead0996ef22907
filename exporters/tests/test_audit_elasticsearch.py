"""The audit trail from a service to a real Elasticsearch, and what somebody there may do to it, as an admin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from prometheus_client import generate_latest

from taskscope.audit import Audit, Report, load_audit_key, verify
from taskscope.catalogue import Catalogue
from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.spool import Spool
from taskscope.testing.waiting import until
from taskscope_exporters.logs.deadletters import FILE_NAME
from taskscope_exporters.logs.metrics import ShipperMetrics
from taskscope_exporters.logs.reading.audited import AuditServer, Evidence
from taskscope_exporters.logs.replay import replay
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import stream_name

from .conftest import ADMIN, Node

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


class Shop:
    """One service, its folder, and the shipper of it."""

    def __init__(self, node: Node, spool: Path, name: str) -> None:
        self.node = node
        self.spool = spool
        self.name = name
        self.folder = spool / "audit"
        self.stream = stream_name(name, "local", audit=True)
        self.said: list[str] = []

    @property
    def settings(self) -> ShipSettings:
        return self.node.settings(self.spool, pause_s=0.05)

    def audit(self) -> Audit:
        encoder = EcsEncoder(
            service_name=self.name, service_version="1", environment="local", instance="i"
        )
        return Audit(spool=self.spool, encoder=encoder, max_bytes=1 << 22, segment_bytes=1 << 20)

    @contextmanager
    def shipping(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(
            target=run,
            args=(self.settings,),
            kwargs={
                "catalogue": Catalogue(service=self.name),
                "stop": stop,
                "port": None,
                "say": self.said.append,
            },
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def shipped(self, lines: int) -> None:
        with self.shipping():
            until(lambda: self.node.count(self.stream) == lines, within_s=60, every_s=0.2)
            until(lambda: self.waits() is False, within_s=30, every_s=0.05)

    def waits(self) -> bool:
        return any(self.folder.glob("*.seg"))

    def documents(self) -> list[dict[str, Any]]:
        """As the stream has them, in the order of their chains, each with its backing index."""
        with self.node.client() as client:
            client.indices.refresh(index=self.stream)
            hits = client.search(index=self.stream, size=1000)["hits"]["hits"]
        found = [{"_id": hit["_id"], "_index": hit["_index"], **hit["_source"]} for hit in hits]
        return sorted(found, key=lambda each: (each["@timestamp"], each["audit.sequence"]))

    def report(self, *, since: int | None = None, folder: bool = True) -> Report:
        with self.node.client() as client:
            client.indices.refresh(index=self.stream)
            server = AuditServer(client=client, url=self.node.url, index=self.stream)
            evidence = Evidence(folder=self.folder if folder else None, server=server, since=since)
            lines = list(evidence.lines())
        return verify(
            lines,
            [load_audit_key(self.folder)],
            heads=evidence.heads,
            without_before=evidence.without_before,
        )

    def found(self, **how: Any) -> list[tuple[str, int, int, str]]:
        return [
            (each.kind.value, each.sequence, each.last, each.id)
            for each in self.report(**how).breaks
        ]


@pytest.fixture
def shop(node: Node, tmp_path: Path) -> Shop:
    """Two runs, of 4 and 5 lines with the first and the last one of each; all of them are in the stream alone."""
    made = Shop(node, tmp_path, "audit" + re.sub("[^a-z0-9]", "", tmp_path.name)[-24:])
    for actions in (("user.login", "task.deleted"), ("user.login", "user.login", "user.logout")):
        audit = made.audit()
        for action in actions:
            assert audit.record(action, target="door")
        audit.close()
    made.shipped(9)
    return made


def test_the_trail_is_whole_there_and_each_act_of_an_admin_is_found(shop: Shop) -> None:
    report = shop.report()
    assert (report.intact, report.chains, report.lines, report.open) == (True, 2, 9, ())
    lines = shop.documents()
    assert [line["audit.sequence"] for line in lines] == [0, 1, 2, 3, 0, 1, 2, 3, 4]

    def at(line: dict[str, Any]) -> dict[str, Any]:
        return {"index": line["_index"], "id": line["_id"]}

    with shop.node.client() as client:
        forged = {**lines[1], "message": "nothing to see"}
        forged.pop("_id"), forged.pop("_index")
        client.update(**at(lines[1]), doc={"event.outcome": "failure"})
        assert shop.found() == [("changed", 1, 1, lines[1]["_id"])]
        client.update(**at(lines[1]), doc={"event.outcome": "success"})
        assert shop.found() == []
        client.create(index=shop.stream, id="forged", document=forged)
        assert shop.found() == [("inserted", 1, 1, "forged")]
        client.delete(index=lines[1]["_index"], id="forged")
        client.create(index=shop.stream, id="copy", document={**_bare(lines[2])})
        assert shop.found() == [("inserted", 2, 2, "copy")]
        client.delete(index=lines[1]["_index"], id="copy")
        client.delete(**at(lines[7]))
        assert shop.found() == [("removed", 3, 3, "")]
        client.delete(**at(lines[8]))
        assert shop.found() == [("removed", 3, 4, "")]
        assert shop.found(folder=False) == []  # the last run's end is known to the folder alone
        client.delete(**at(lines[3]))
        assert shop.found(folder=False) == [("removed", 3, 3, lines[4]["_id"])]
        for line in lines[:3]:
            client.delete(**at(line))
        assert shop.found(folder=False) == [("run removed", 0, 3, lines[4]["_id"])]
        for line in lines[4:7]:
            client.delete(**at(line))
        assert ("run removed", 0, 4, "") in shop.found()


def _bare(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.startswith("_")}


def test_runs_since_a_moment_are_read_whole_and_those_before_them_are_missed(shop: Shop) -> None:
    lines = shop.documents()
    with shop.node.client() as client:
        since = _micros(lines[6]["@timestamp"])
        report = shop.report(since=since, folder=False)
        assert (report.breaks, report.chains, report.lines) == ((), 2, 9)
        client.delete(index=lines[4]["_index"], id=lines[4]["_id"])
        assert [kind for kind, *_ in shop.found(since=since, folder=False)] == ["removed"]
    after = _micros(lines[8]["@timestamp"]) + 1_000_000
    assert shop.report(since=after, folder=False).lines == 0


def _micros(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1_000_000)


def test_what_waits_is_checked_with_what_is_stored(shop: Shop) -> None:
    audit = shop.audit()
    assert audit.record("user.login")
    assert audit.record("user.logout")
    assert shop.report().lines == 12
    assert shop.report().intact
    with shop.shipping():
        until(lambda: shop.node.count(shop.stream) == 12, within_s=60, every_s=0.2)
        report = shop.report()
        assert (report.intact, report.lines, len(report.open)) == (True, 12, 1)
        audit.close()
    assert shop.report().lines == 13


def test_lines_and_audit_lines_go_to_a_stream_each_by_one_shipper(
    node: Node, tmp_path: Path
) -> None:
    shop = Shop(node, tmp_path, "twostreams")
    spool = Spool(tmp_path, max_bytes=1 << 22, segment_bytes=1 << 20)
    assert spool.write(b'{"@timestamp":"2026-11-24T03:12:00.000000Z","message":"one"}\n')
    spool.close()
    lines = stream_name(shop.name, "local")
    with shop.shipping():
        until(lambda: node.count(lines) == 1, within_s=60, every_s=0.2)
        audit = shop.audit()  # the folder comes later
        assert audit.record("user.login")
        until(lambda: node.count(shop.stream) == 2, within_s=60, every_s=0.2)
        audit.close()
    # What was written as the shipper ended is there as well, or waits.
    assert node.count(shop.stream) + len(list(shop.folder.glob("*.seg"))) >= 3
    assert node.count(lines) == 1
    assert not [sentence for sentence in shop.said if "refused" in sentence]


def test_a_refused_audit_line_is_a_dead_letter_that_the_check_still_sees(shop: Shop) -> None:
    with shop.node.client() as client:
        client.indices.put_mapping(
            index=shop.stream, properties={"labels": {"type": "flattened", "depth_limit": 1}}
        )
    audit = shop.audit()
    assert audit.record("user.login", deep={"a": {"b": 1}})
    audit.close()
    with shop.shipping():
        until(lambda: (shop.folder / FILE_NAME).exists(), within_s=60, every_s=0.1)
        until(lambda: not shop.waits(), within_s=60, every_s=0.1)
    assert shop.node.count(shop.stream) == 11
    assert (shop.report().intact, shop.report().lines) == (True, 12)
    (shop.folder / FILE_NAME).rename(shop.folder / "away")
    assert [kind for kind, *_ in shop.found()] == ["removed"]
    (shop.folder / "away").rename(shop.folder / FILE_NAME)
    with shop.node.client() as client:
        client.indices.put_mapping(
            index=shop.stream, properties={"labels": {"type": "flattened", "depth_limit": 20}}
        )
    done = replay(replace(shop.settings, spool=shop.folder), service=shop.name, stream=shop.stream)
    assert (done.stored, shop.report().intact, shop.report().lines) == (1, True, 12)


def test_connected_is_who_ships_both(tmp_path: Path) -> None:
    metrics = ShipperMetrics(Catalogue(service="both"), ShipSettings(spool=tmp_path))
    audit = metrics.of_audit()
    metrics.up.set(1)
    assert b"taskscope_shipper_connected 1.0" in generate_latest(metrics.registry)
    audit.up.set(0)
    metrics.up.set(1)
    assert b"taskscope_shipper_connected 0.0" in generate_latest(metrics.registry)
    audit.up.set(1)
    assert b"taskscope_shipper_connected 1.0" in generate_latest(metrics.registry)
    (tmp_path / "audit").mkdir()
    spool = Spool(tmp_path / "audit", max_bytes=1 << 20, segment_bytes=1 << 16)
    assert spool.write(b'{"@timestamp":"2026-01-01T00:00:00.000000Z"}\n')
    spool.close()
    assert b"taskscope_spool_size_bytes 45.0" in generate_latest(metrics.registry)


def typed(shop: Shop, *words: str, server: bool = True) -> tuple[int, list[str], str]:
    environ = {name: value for name, value in os.environ.items() if "ELASTIC" not in name}
    environ |= {"TASKSCOPE_SPOOL": str(shop.spool), "OTEL_SERVICE_NAME": shop.name}
    if server:
        environ |= {
            "ELASTICSEARCH_URL": shop.node.url,
            "ELASTICSEARCH_USERNAME": ADMIN.name,
            "ELASTICSEARCH_PASSWORD": ADMIN.password,
        }
    done = subprocess.run(
        [sys.executable, "-m", "taskscope_ui", "logs", "verify", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_the_command_says_what_it_found_and_ends_as_it_did(shop: Shop, tmp_path: Path) -> None:
    code, said, told = typed(shop)
    assert code == 0, told
    assert said[0].startswith("intact: 2 chains, 9 lines, 20")
    assert f"stream {shop.stream}" in told
    code, said, _ = typed(shop, "--since", "1h", "--json")
    assert (code, json.loads(said[0])["lines"]) == (0, 9)
    other = tmp_path / "other.key"
    other.write_bytes(b"x" * 32)
    code, said, told = typed(shop, "--from", "elasticsearch", "--key-file", str(other))
    assert (code, said[0].split(":")[0], "cannot be checked" in told) == (
        2,
        "not all checked",
        True,
    )
    code, _, told = typed(shop, "--from", "elasticsearch")
    assert (code, "no key to check with" in told) == (2, True)
    line = shop.documents()[2]
    with Elasticsearch(shop.node.url, basic_auth=(ADMIN.name, ADMIN.password)) as client:
        client.update(index=line["_index"], id=line["_id"], doc={"message": "x"}, refresh=True)
    code, said, _ = typed(shop)
    assert code == 1
    assert said[1].split()[:4] == ["changed", line["audit.chain"], "2", line["_id"]]
    assert said[-1].startswith("broken in 1 place: 2 chains, 9 lines")
    code, said, _ = typed(shop, "--from", "spool")
    assert (code, "run removed" in said[1]) == (1, True)  # in the folder itself no line is left
    code, _, told = typed(shop, "--spool", str(tmp_path / "nowhere"), server=False)
    assert (code, "name the service's folder" in told) == (2, True)
