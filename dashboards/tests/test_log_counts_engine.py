"""The logs board, the collector's series and a count made in Elasticsearch say the same, to the line."""

from __future__ import annotations

import json
import threading
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from taskscope.catalogue import Catalogue
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope.testing.engines import HOST, Missing, free_ports, new_password, running
from taskscope.testing.engines import elasticsearch as es
from taskscope.testing.engines.prometheus import prometheus
from taskscope.testing.promql import substitute
from taskscope_dashboards import boards
from taskscope_exporters.logs.collecting import CollectSettings, collect
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.template import log_template

until = partial(waiting.until, within_s=60, every_s=0.2)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

SHOP = Catalogue(service="counted")
STREAM = "logs-counted-local"
ADMIN = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
SHIPPER = es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER)
READER = es.EsUser(name="reader", password=new_password(), role=es.READER)
CHOICES = {"route": ".*", "level": ".*", "exception": ".*", "__range": "10m"}

LINES = (
    *[{"log.level": "info", "event.dataset": "counted", "http.route": "/a"}] * 61,
    *[{"log.level": "warning", "event.dataset": "counted"}] * 7,
    *[{"log.level": "error", "event.dataset": "counted", "error.type": "KeyError"}] * 5,
    *[{"log.level": "error", "error.type": "KeyError", "http.route": "/a"}] * 11,
    *[{"log.level": "error", "error.type": "TimeoutError", "http.route": "/b"}] * 3,
    *[{"log.level": "critical", "event.dataset": "counted", "http.route": "/b"}] * 2,
)
LATE = ({"log.level": "error", "error.type": "KeyError", "http.route": "/b"},) * 4


@dataclass
class World:
    """A spool, a shipper, a collector, and a Prometheus that scrapes it each second."""

    elasticsearch: str
    prometheus: str
    spool: Spool

    def write(self, lines: tuple[dict[str, str], ...], at: str) -> None:
        for line in lines:
            text = json.dumps({"@timestamp": at, "message": "m", "event.dataset": "other"} | line)
            self.spool.write(text.encode() + b"\n")

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        words = {"query": expr} | ({} if at is None else {"time": f"{at:.3f}"})
        url = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            body = json.loads(answer.read())
        return list(body["data"]["result"])

    def raw(self, expr: str, at: float | None = None) -> dict[str, float]:
        """What one label's values have; those that are 0 left out."""
        rows = self.query(expr, at)
        found = {next(iter(row["metric"].values()), ""): float(row["value"][1]) for row in rows}
        return {name: value for name, value in found.items() if value}

    def direct(self, field: str, *, errors: bool) -> dict[str, int]:
        """Lines of each value of a field, as Elasticsearch's own terms aggregation counts them."""
        only = [{"terms": {"log.level": ["error", "critical"]}}] if errors else []
        with Elasticsearch(self.elasticsearch, basic_auth=(ADMIN.name, ADMIN.password)) as client:
            client.indices.refresh(index=STREAM)
            found = client.search(
                index=STREAM,
                size=0,
                query={"bool": {"filter": only}},
                aggs={"by": {"terms": {"field": field, "size": 100, "missing": "none"}}},
            )
        return {b["key"]: b["doc_count"] for b in found["aggregations"]["by"]["buckets"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("counted")
    port, transport, metrics, watch = free_ports(4)
    config = folder / "prometheus.yml"
    job = {"job_name": "counted-collector", "static_configs": [{"targets": [f"{HOST}:{metrics}"]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    try:
        spec = es.elasticsearch(
            folder / "es",
            port=port,
            transport_port=transport,
            users=[ADMIN, SHIPPER, READER],
        )
    except Missing as missing:
        pytest.skip(str(missing))
    url = f"http://{HOST}:{port}"
    spool = Spool(folder / "spool", max_bytes=1 << 26, segment_bytes=1 << 16)
    with running(spec), running(prometheus(folder / "p", port=watch, config=config)):
        with Elasticsearch(url, basic_auth=(ADMIN.name, ADMIN.password)) as client:
            install(client, log_template(SHOP.service))
        with at_work(url, folder, metrics):
            yield World(url, f"http://{HOST}:{watch}", spool)
    spool.close()


@contextmanager
def at_work(url: str, folder: Path, port: int) -> Iterator[None]:
    """A shipper and a collector in threads of their own."""
    stop = threading.Event()
    shared = {"catalogue": SHOP, "stop": stop, "say": lambda _: None}
    shipping = login(url, SHIPPER, folder / "spool")
    counting = CollectSettings(
        elasticsearch=login(url, READER, folder / "none"), folder=folder / "counts", every_s=2.0
    )
    threads = (
        threading.Thread(target=run, args=(shipping,), kwargs=shared | {"port": None}),
        threading.Thread(target=collect, args=(counting,), kwargs=shared | {"port": port}),
    )
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def login(url: str, user: es.EsUser, spool: Path) -> ShipSettings:
    word = Secret(text=user.password)
    return ShipSettings(url=url, username=user.name, password=word, spool=spool, backoff_s=0.5)


def panel(title: str) -> str:
    """The query of the board's panel, with everything chosen."""
    board = next(board for board in boards(SHOP) if board.slug == "logs")
    (found,) = (p for p in board.panels if p.title == title)
    return substitute(found.queries[0].expr, CHOICES)


PANELS = {
    # panel: the series it counts, the label, the field in Elasticsearch, whether errors alone
    "Lines stored in the chosen time": ("taskscope_logs_stored_total", "log.level", False),
    "Exceptions, top 10": ("taskscope_logs_errors_total", "error.type", True),
    "Routes by error lines, top 10": ("taskscope_logs_errors_total", "http.route", True),
}


def test_the_panels_the_series_and_elasticsearch_agree(world: World) -> None:
    until(lambda: world.query('taskscope_logs_stored_total{job="counted-collector"}'))
    world.write(LINES, "2026-11-24T12:00:00.000000Z")
    until(lambda: sum(world.raw(_sum("taskscope_logs_stored_total")).values()) == len(LINES))
    world.write(LATE, "2026-11-01T00:00:00.000000Z")
    total = len(LINES) + len(LATE)
    errors = 5 + 11 + 3 + 2 + len(LATE)
    until(lambda: sum(world.raw(_sum("taskscope_logs_stored_total")).values()) == total)
    until(lambda: sum(world.raw(_sum("taskscope_logs_errors_total")).values()) == errors)

    for title, (series, field, only_errors) in PANELS.items():
        direct = world.direct(field, errors=only_errors)
        by = field.replace(".", "_")
        # At the very moment of a scrape nothing is extrapolated: the increase is the count.
        at = float(
            world.query(f'max(timestamp({series}{{job="counted-collector"}}))')[0]["value"][1]
        )
        assert world.raw(_sum(series, by), at) == direct, title
        assert {k: round(v, 6) for k, v in world.raw(panel(title), at).items()} == direct, title


def test_what_was_written_is_what_elasticsearch_holds(world: World) -> None:
    written = Counter(line["log.level"] for line in (*LINES, *LATE))
    assert world.direct("log.level", errors=False) == dict(written)


def _sum(series: str, by: str = "job") -> str:
    return f'sum by ({by}) ({series}{{job="counted-collector"}})'
