"""The shop's metrics, spans and log lines, with the fixtures that taskscope brings to pytest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from shop.app import create_app
from shop.catalogue import ORDERS, PACKING, PACKING_DURATION, STOCK
from taskscope import Settings


@pytest.fixture
def taskscope_app(tmp_path: Path) -> FastAPI:
    return create_app(pieces=2, settings=Settings(spool=tmp_path / "spool"))


@pytest.fixture
def client(taskscope_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(taskscope_app, raise_server_exceptions=False) as client:
        yield client


def test_an_order_is_counted_and_packed(client, taskscope_metrics):
    client.post("/orders", json={"article": "book", "payment": "card"})
    assert taskscope_metrics.change(ORDERS, payment="card") == 1
    assert taskscope_metrics.change(STOCK) == -1
    assert taskscope_metrics.change(PACKING_DURATION, outcome="ok") == 1
    assert taskscope_metrics.value(PACKING) == 0


def test_an_order_that_breaks_is_an_error_of_the_packing_and_not_of_the_request(
    client, taskscope_metrics, taskscope_spans, taskscope_lines
):
    client.post("/orders", json={"article": "fragile", "payment": "invoice"})
    assert taskscope_metrics.change(PACKING_DURATION, outcome="error") == 1
    assert [span.name for span in taskscope_spans()] == ["POST /orders"]
    assert [line["message"] for line in taskscope_lines("shop")] == ["order placed"]


def test_those_who_watch_are_told_until_the_store_is_empty(client):
    for _ in range(2):
        client.post("/orders", json={"article": "book", "payment": "card"})
    assert client.get("/stock/events").text == "data: 0\n\n"
    answer = client.post("/orders", json={"article": "book", "payment": "card"})
    assert answer.status_code == 409


def test_what_the_shop_emits_is_what_it_declares(client, taskscope_conformance):
    client.post("/orders", json={"article": "book", "payment": "card"})
    taskscope_conformance().check()
