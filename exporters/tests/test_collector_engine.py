"""The collector's counts on a real Elasticsearch: exactly those of a count made there, whatever comes between."""

from __future__ import annotations

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from taskscope.catalogue import Catalogue
from taskscope.catalogue.metric import OVERFLOW
from taskscope.testing import waiting
from taskscope.testing.engines import HOST, free_port
from taskscope.testing.engines import elasticsearch as es
from taskscope_exporters.logs import aggregates, collector
from taskscope_exporters.logs.collected import CollectorMetrics
from taskscope_exporters.logs.collecting import CollectSettings, collect
from taskscope_exporters.logs.collector import Collector
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.marks import Marks, Window
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.streams import StreamSettings
from taskscope_exporters.logs.template import log_template

from .conftest import ADMIN, READER, SHIPPER, Node

until = partial(waiting.until, within_s=30)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

Document = dict[str, object]
Pairs = Counter[tuple[str, str]]


@pytest.fixture
def url(node: Node) -> str:
    return node.url


@pytest.fixture
def client(url: str) -> Iterator[Elasticsearch]:
    with Elasticsearch(url, basic_auth=(ADMIN.name, ADMIN.password)) as made:
        yield made


@dataclass
class Desk:
    """A stream of its own, and a collector that looks when it is told."""

    url: str
    client: Elasticsearch
    service: str
    folder: Path
    said: list[str] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        self.stream = f"logs-{self.service}-local"
        self.catalogue = Catalogue(service=self.service)
        self.word = self.folder / "word"
        self.word.write_text(READER.password)
        self.collector = self.started()

    def started(self, user: es.EsUser = READER, url: str = "") -> Collector:
        self.metrics = CollectorMetrics(self.catalogue, stale_s=300)
        secret = Secret(file=self.word) if user is READER else Secret(text=user.password)
        return Collector(
            settings=ShipSettings(url=url or self.url, username=user.name, password=secret),
            catalogue=self.catalogue,
            metrics=self.metrics,
            file=self.folder / "counts.json",
            stop=threading.Event(),
            say=self.said.append,
        )

    def restart(self) -> None:
        self.collector = self.started()

    def put(self, documents: Sequence[Document], *, refresh: bool = True) -> None:
        operations: list[Document] = []
        for document in documents:
            operations += [{"create": {"_id": f"{self.service}-{self.written}"}}, document]
            self.written += 1
        answer = self.client.bulk(
            index=self.stream, operations=operations, refresh=refresh, require_data_stream=True
        )
        assert not answer["errors"]

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.collector.attempt(), self.said

    def series(self, name: str) -> dict[tuple[str, ...], int]:
        text = generate_latest(self.metrics.registry).decode()
        return {
            tuple(value for _, value in sorted(sample.labels.items())): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.value
        }

    @property
    def requests(self) -> int:
        return self.series("taskscope_collector_requests_total").get((), 0)

    def direct(self) -> tuple[Pairs, Pairs]:
        """Lines by dataset and level, and errors by type and route, each counted by a query of its own."""
        self.client.indices.refresh(index=self.stream)
        lines, errors = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        found = self.client.search(index=self.stream, size=10_000, source=True)
        assert found["hits"]["total"]["relation"] == "eq"
        for pair in {_line(hit["_source"]) for hit in found["hits"]["hits"]}:
            lines[pair] = self._count({"event.dataset": pair[0], "log.level": pair[1]})
        for pair in {
            _error(hit["_source"])
            for hit in found["hits"]["hits"]
            if hit["_source"]["log.level"] in ("error", "critical")
        }:
            named = {"error.type": pair[0], "http.route": pair[1]}
            errors[pair] = self._count(named, errors=True)
        return lines, errors

    def _count(self, named: dict[str, str], *, errors: bool = False) -> int:
        has: list[Document] = [{"term": {k: v}} for k, v in named.items() if v != "none"]
        lacks = [{"exists": {"field": k}} for k, v in named.items() if v == "none"]
        if errors:
            has.append({"terms": {"log.level": ["error", "critical"]}})
        query = {"bool": {"filter": has, "must_not": lacks}}
        return int(self.client.count(index=self.stream, query=query)["count"])

    def agree(self) -> None:
        lines, errors = self.direct()
        assert self.series("taskscope_logs_stored_total") == dict(lines)
        assert self.series("taskscope_logs_errors_total") == dict(errors)


def _line(source: dict[str, Any]) -> tuple[str, str]:
    return str(source["event.dataset"]), str(source["log.level"])


def _error(source: dict[str, Any]) -> tuple[str, str]:
    return str(source.get("error.type", "none")), str(source.get("http.route", "none"))


def line(n: int, at: str = "2026-11-24T12:00:00Z") -> Document:
    """A line of a known level, dataset, exception and route."""
    level = ("info", "info", "warning", "error", "critical")[n % 5]
    document: Document = {"@timestamp": at, "log.level": level, "message": "m"}
    document["event.dataset"] = ("app", "access")[n % 2]
    if n % 3:
        document["http.route"] = ("/tasks", "/users")[n % 2]
    if level in ("error", "critical") and n % 4:
        document["error.type"] = ("KeyError", "TimeoutError", "ValueError")[n % 3]
    return document


def lines(count: int, **more: str) -> list[Document]:
    return [line(n, **more) for n in range(count)]


@pytest.fixture
def desk(url: str, client: Elasticsearch, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    made = Desk(url, client, f"s{abs(hash(request.node.name)) % 10**8}", tmp_path)
    install(client, log_template(made.service))
    return made


def test_the_series_are_the_count_made_in_elasticsearch(desk: Desk) -> None:
    desk.look()
    desk.put(lines(237))
    desk.look(3)
    desk.agree()
    assert sum(desk.series("taskscope_logs_stored_total").values()) == 237


def test_late_lines_are_counted_once_and_as_they_arrive(desk: Desk) -> None:
    desk.look()
    desk.put(lines(50))
    desk.look(2)
    desk.put(lines(40, at="2026-10-01T00:00:00Z"))
    desk.put(lines(30, at="2026-12-31T00:00:00Z"))
    desk.look(3)
    desk.agree()


def test_lines_that_are_sent_twice_are_counted_once(desk: Desk) -> None:
    desk.look()
    desk.put(lines(60))
    again = [
        part for n in range(60) for part in ({"create": {"_id": f"{desk.service}-{n}"}}, line(n))
    ]
    assert desk.client.bulk(index=desk.stream, operations=again)["errors"]
    desk.look(3)
    desk.agree()


def test_a_restart_loses_nothing_and_counts_nothing_twice(desk: Desk) -> None:
    desk.look()
    desk.put(lines(90))
    desk.look(3)
    before = desk.series("taskscope_logs_errors_total")
    desk.restart()
    desk.put(lines(45))
    desk.look()
    assert desk.series("taskscope_logs_errors_total") == before
    desk.look(3)
    desk.agree()


def test_without_its_file_counting_begins_at_what_comes_and_not_at_what_is_there(
    desk: Desk,
) -> None:
    desk.look()
    desk.put(lines(90))
    desk.look(3)
    (desk.folder / "counts.json").unlink()
    desk.restart()
    desk.look()
    assert desk.series("taskscope_logs_stored_total") == {}
    desk.put(lines(10))
    desk.look(3)
    assert sum(desk.series("taskscope_logs_stored_total").values()) == 10


def test_a_rollover_between_two_looks_moves_no_count(desk: Desk) -> None:
    desk.look()
    desk.put(lines(70))
    desk.look()
    desk.client.indices.rollover(alias=desk.stream)
    desk.put(lines(35))
    desk.look(3)
    desk.client.indices.rollover(alias=desk.stream)
    desk.look(2)
    desk.agree()


def test_a_stream_of_several_shards_is_counted_whole(
    url: str, client: Elasticsearch, tmp_path: Path
) -> None:
    desk = Desk(url, client, "sharded", tmp_path)
    install(client, log_template("sharded", StreamSettings(shards=3)))
    desk.look()
    desk.put(lines(200))
    desk.look(3)
    desk.agree()


def test_lines_that_no_search_sees_yet_wait_and_are_not_lost(desk: Desk) -> None:
    desk.look()
    desk.put(lines(20))
    desk.client.indices.put_settings(index=desk.stream, settings={"index.refresh_interval": "-1"})
    desk.put(lines(30), refresh=False)
    desk.look(4)
    assert sum(desk.series("taskscope_logs_stored_total").values()) == 0
    assert desk.series("taskscope_collector_uncounted") == {(): 50}
    desk.client.indices.refresh(index=desk.stream)
    desk.look(3)
    desk.agree()


def test_pairs_beyond_an_answer_s_bound_are_one_and_the_sums_stay(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "MOST_BUCKETS", 3)
    desk.look()
    desk.put(lines(120))
    desk.look(3)
    _, errors = desk.direct()
    found = desk.series("taskscope_logs_errors_total")
    assert sum(found.values()) == errors.total() > 0
    assert found[OVERFLOW, OVERFLOW] > 0


def test_a_backlog_is_counted_in_portions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MOST_LINES", 100)
    desk.collector = desk.started()
    desk.collector._most = 100
    desk.look()
    desk.put(lines(250))
    desk.look(5)
    desk.agree()


def test_one_look_is_two_requests_with_news_and_one_without(desk: Desk) -> None:
    desk.look()
    desk.put(lines(100))
    desk.look()
    before = desk.requests
    desk.look()
    assert desk.requests - before == 2
    desk.look()
    assert desk.requests - before == 3


def test_a_refused_login_shows_no_counts_and_the_right_one_goes_on(desk: Desk) -> None:
    desk.look()
    desk.put(lines(40))
    desk.look(3)
    desk.word.write_text("wrong")
    desk.collector._drop_client()
    assert not desk.collector.attempt()
    assert not desk.collector.attempt()
    assert desk.series("taskscope_logs_stored_total") == {}
    assert desk.series("taskscope_collector_connected") == {}
    assert len(desk.said) == 1
    assert "401" in desk.said[0]
    desk.put(lines(15))
    desk.word.write_text(READER.password)
    desk.look(3)
    desk.agree()
    assert "counted again" in desk.said[-1]


def test_a_server_that_is_not_there_is_told_once(desk: Desk) -> None:
    unreachable = desk.started(url=f"http://{HOST}:{free_port()}")
    assert [unreachable.attempt() for _ in range(3)] == [False] * 3
    assert len(desk.said) == 1
    assert "cannot be reached" in desk.said[0]


def test_the_shipper_s_login_cannot_count(desk: Desk) -> None:
    desk.put(lines(1))
    assert not desk.started(user=SHIPPER).attempt()
    assert "403" in desk.said[0]


def test_counts_that_cannot_be_kept_are_not_shown(desk: Desk) -> None:
    desk.look()
    desk.put(lines(30))
    desk.look()
    (desk.folder / "counts.new").mkdir()
    assert not desk.collector.attempt()
    assert desk.series("taskscope_logs_stored_total") == {}
    assert "mend the folder or free the disk" in desk.said[0]
    (desk.folder / "counts.new").rmdir()
    desk.look(3)
    desk.agree()


def _windowed_by_time(window: Window) -> Document:
    asked = _SEARCH(window)
    late = {"range": {"@timestamp": {"gte": "2026-11-01T00:00:00Z"}}}
    return asked | {"query": {"bool": {"filter": [asked["query"], late]}}}


_SEARCH = aggregates._search


@pytest.mark.parametrize("plant", ["a double count", "a lost late line"])
def test_a_planted_fault_is_caught(desk: Desk, monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    if plant == "a double count":
        monkeypatch.setattr(Marks, "advanced", lambda marks, _: marks)
    else:
        monkeypatch.setattr(aggregates, "_search", _windowed_by_time)
        monkeypatch.setattr(collector, "PATIENT_LOOKS", 1)
    desk.look()
    desk.put(lines(40))
    desk.put(lines(5, at="2026-10-01T00:00:00Z"))
    desk.look(4)
    with pytest.raises(AssertionError):
        desk.agree()


def test_the_command_s_loop_serves_the_counts(desk: Desk) -> None:
    port, stop = free_port(), threading.Event()
    settings = CollectSettings(
        elasticsearch=desk.collector.settings, folder=desk.folder / "kept", every_s=1.0
    )
    words = {"catalogue": desk.catalogue, "stop": stop, "port": port, "say": desk.said.append}
    thread = threading.Thread(target=collect, args=(settings,), kwargs=words)
    thread.start()

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")

    try:
        until((settings.folder / f"{desk.stream}.json").exists)
        assert "taskscope_collector_connected 1.0" in until(scrape)
        desk.put(lines(10))
        wanted = 'taskscope_logs_stored_total{event_dataset="access",log_level="info"} 2.0'
        until(lambda: wanted in scrape())
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()
    assert desk.said == []
