"""A fault behind a scrape is counted, and all that can be told is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from taskscope import Catalogue, Kind, Metric, Settings, Telemetry, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.testing.metrics import value

QUEUE = Metric(
    name="shop.queue.length", kind=Kind.GAUGE, unit="{job}", help="Jobs that wait.", owner="shop"
)


class PlantedError(Exception):
    """What was planted; nothing of the library raises it."""


def fail(*_args: object, **_named: object) -> Any:
    raise PlantedError("planted")


class FailingCollector(Collector):
    def collect(self) -> Iterable[Family]:
        raise PlantedError("planted")


class Shop:
    """An instrumented service with a registry of its own besides."""

    def __init__(self, spool: Path) -> None:
        app = FastAPI()
        self.guests = CollectorRegistry()
        self.telemetry: Telemetry = instrument(
            app,
            service_name="shop",
            service_version="1",
            catalogue=Catalogue(service="shop", metrics=(QUEUE,)),
            settings=Settings(spool=spool),
            registry=self.guests,
            tracing=False,
        )
        self._client = TestClient(app)

    def page(self) -> str:
        answer = self._client.get("/metrics")
        assert answer.status_code == 200
        return answer.text

    def errors(self, component: str) -> float:
        labels = {"component": component, "error_type": "PlantedError"}
        return value(self.telemetry.registry, LIBRARY_ERRORS, **labels)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "spool")
    yield made
    made.telemetry.close()


def test_a_gauge_that_cannot_be_read_is_no_number_and_the_page_is_there(shop: Shop) -> None:
    shop.telemetry.gauge(QUEUE).follow(fail)
    assert "shop_queue_length NaN" in shop.page()
    assert shop.errors("probes") >= 1


def test_a_collector_of_the_service_that_fails_leaves_the_page_to_the_others(shop: Shop) -> None:
    shop.guests.register(FailingCollector())
    assert "taskscope_build_info" in shop.page()
    assert shop.errors("exposition") >= 1


@pytest.mark.parametrize(
    "target",
    [
        "taskscope.metrics.rendering.Renderer.render",
        "taskscope.metrics.guests.Guests.render",
        "taskscope.scraping.answers.Answers._readings",
        "taskscope.metrics.store.MemoryStore.readings",
    ],
)
def test_a_page_that_cannot_be_made_is_the_last_good_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr("taskscope.scraping.scrapes._SHARED_S", 0.0)
    shop.page()
    with monkeypatch.context() as planting:
        planting.setattr(target, fail)
        assert "taskscope_build_info" in shop.page()
    assert shop.errors("exposition") == 1


def test_what_reads_the_process_may_fail_and_the_page_is_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planting:
        planting.setattr("prometheus_client.process_collector.ProcessCollector.collect", fail)
        assert "taskscope_build_info" in shop.page()
    assert shop.errors("probes") >= 1
