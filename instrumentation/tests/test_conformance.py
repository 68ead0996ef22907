"""Emitted is declared and declared is emitted: a service on a real socket, held against its catalogue.

Once through the parser of the client, once through what a real Prometheus has stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep

import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import Engine, create_engine

from taskscope import (
    Catalogue,
    Kind,
    Label,
    Metric,
    Objective,
    Settings,
    Window,
    get_logger,
    instrument,
)
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.metric import OVERFLOW
from taskscope.testing.engines import free_port, running
from taskscope.testing.engines.prometheus import prometheus
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until

PAID = Metric(
    name="shop.orders.paid",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were paid.",
    owner="shop",
    labels=(Label("method", values=("card", "cash")),),
)
STOCK = Metric(
    name="shop.stock",
    kind=Kind.GAUGE,
    unit="{piece}",
    help="Pieces in the store.",
    owner="shop",
    labels=(Label("article", cap=5, bounded_by="the articles"),),
)
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Time in the queue.", owner="shop"
)
FAST = Objective(
    name="fast",
    title="Under 300 ms",
    metric=REQUEST_DURATION,
    target=Decimal("0.99"),
    window=Window(days=30),
    threshold=Decimal("0.3"),
)
SHOP = Catalogue(service="shop", metrics=(PAID, STOCK, WAIT), objectives=(FAST,))
REQUESTS = 25


def _service(spool: Path, database: Engine) -> FastAPI:
    app = FastAPI()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        catalogue=SHOP,
        settings=Settings(spool=spool),
    )

    telemetry.watch_database(database)

    @app.post("/orders/{order}")
    def pay(order: int, after: BackgroundTasks) -> int:
        with database.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        after.add_task(get_logger("shop").info, "order told of")
        telemetry.counter(PAID).inc(method="card")
        telemetry.gauge(STOCK).set(order, article=f"article {order}")
        telemetry.histogram(WAIT).observe(0.2)
        get_logger("shop").info("order paid")
        return order

    return app


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('database') / 'shop.db'}")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, database: Engine) -> list[Sample]:
    app = _service(tmp_path_factory.mktemp("spool") / "spool", database)
    with serving(app) as url, httpx2.Client(base_url=url) as client:
        for order in range(REQUESTS):
            assert client.post(f"/orders/{order}").status_code == 200
        client.get("/not/there")
        _wait_until_all_are_counted(app)  # a request is once its background task has ended
        page = client.get("/metrics").text
    return [s for family in text_string_to_metric_families(page) for s in family.samples]


def _wait_until_all_are_counted(app: FastAPI) -> None:
    until(lambda: value(app.state.telemetry.registry, REQUEST_DURATION) > REQUESTS, within_s=10)


def test_every_series_that_is_emitted_is_declared(samples: list[Sample]) -> None:
    declared = {n for m in SHOP.all_metrics if m.target == "service" for n in m.exposed}
    assert {sample.name for sample in samples} - declared == set()


def test_every_series_that_is_declared_is_emitted(samples: list[Sample]) -> None:
    declared = {n for m in SHOP.all_metrics if m.target == "service" for n in m.exposed}
    assert declared - {sample.name for sample in samples} == set()


def test_every_label_is_declared_and_every_value_within_its_bound(samples: list[Sample]) -> None:
    for sample in samples:
        metric = SHOP.metric(sample.name)
        labels = {name: text for name, text in sample.labels.items() if name != "le"}
        assert set(labels) == set(metric.label_names)
        for name, text in labels.items():
            listed = metric.label(name).values
            assert not listed or text in (*listed, OVERFLOW)


def test_the_count_of_requests_is_exactly_the_number_sent(samples: list[Sample]) -> None:
    counted = {
        (s.labels["http_route"], s.labels["outcome"]): s.value
        for s in samples
        if s.name == "http_server_request_duration_seconds_count"
    }
    assert counted == {("/orders/{order}", "ok"): REQUESTS, ("unmatched", "client_error"): 1}


def test_the_count_of_a_business_counter_is_exactly_the_number_sent(
    samples: list[Sample],
) -> None:
    paid = {s.labels["method"]: s.value for s in samples if s.name == "shop_orders_paid_total"}
    assert paid == {"card": REQUESTS, "cash": 0}


def test_the_objectives_threshold_is_a_bound_of_every_request_histogram(
    samples: list[Sample],
) -> None:
    bounds = {
        s.labels["le"] for s in samples if s.name == "http_server_request_duration_seconds_bucket"
    }
    assert "0.3" in bounds


def test_a_label_beyond_its_cap_is_folded(samples: list[Sample]) -> None:
    articles = [s.labels["article"] for s in samples if s.name == "shop_stock"]
    assert len(articles) == 6
    assert OVERFLOW in articles


@pytest.mark.engine
def test_prometheus_stores_what_the_catalogue_declares_and_nothing_else(
    tmp_path: Path, database: Engine
) -> None:
    app = _service(tmp_path / "spool", database)
    folder = tmp_path / "prometheus"
    with serving(app) as url, httpx2.Client(base_url=url) as client:
        for order in range(REQUESTS):
            client.post(f"/orders/{order}")
        target = url.removeprefix("http://")
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "scrape_configs:\n- job_name: shop\n  scrape_interval: 1s\n"
            f"  static_configs:\n  - targets: ['{target}']\n"
        )
        port = free_port()
        with (
            running(prometheus(folder, port=port, config=config)),
            httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as api,
        ):
            stored = _names_once_scraped(api)
            answer = api.get("/query", params={"query": "sum(shop_orders_paid_total)"}).json()
    declared = {n for m in SHOP.all_metrics if m.target == "service" for n in m.exposed}
    assert {name for name in stored if name != "up" and not name.startswith("scrape_")} == declared
    assert answer["data"]["result"][0]["value"][1] == str(REQUESTS)


def _names_once_scraped(api: httpx2.Client) -> set[str]:
    deadline = monotonic() + 20
    while monotonic() < deadline:
        names = set(api.get("/label/__name__/values").json()["data"])
        if "shop_orders_paid_total" in names:
            return names
        sleep(0.1)
    return set()
