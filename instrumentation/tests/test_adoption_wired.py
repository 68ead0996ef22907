"""A service that measured itself before: its own metrics, a peer's old names and a second call, on one /metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from taskscope import Catalogue, Kind, Metric, Settings, instrument
from taskscope.adoption import aliases
from taskscope.errors import InstrumentError
from taskscope.testing.conformance import conformance
from taskscope.testing.server import serving

HTTP = ("h11", "httptools")
OWN = Metric(name="http.requests", kind=Kind.COUNTER, unit="{request}", help="Mine.", owner="shop")


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    return {
        "service_name": "shop",
        "service_version": "1",
        "settings": Settings(spool=tmp_path / "spool"),
    }


def _samples(text: str) -> dict[str, float]:
    return {
        f"{sample.name} {' '.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}".strip(): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("http", HTTP)
def test_metrics_of_prometheus_client_that_are_there_already_stand_beside_ours(
    asked: dict[str, Any], http: Any
) -> None:
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Counter("old_orders", "Orders.", ["payment"], registry=registry)
    app = FastAPI()
    telemetry = instrument(app, registry=registry, **asked)

    @app.get("/orders")
    def order() -> int:
        theirs.labels("card").inc()
        return 1

    with serving(app, http=http) as url, httpx2.Client(base_url=url) as client:
        client.get("/orders")
        samples = _samples(client.get("/metrics").text)
    assert samples["old_orders_total payment=card"] == 1
    assert any(name.startswith("http_server_request_duration_seconds_count") for name in samples)
    assert conformance(telemetry).faults == ()


def test_the_default_registry_of_prometheus_client_may_be_given(asked: dict[str, Any]) -> None:
    app = FastAPI()
    instrument(app, registry=prometheus_client.REGISTRY, **asked)
    with serving(app) as url, httpx2.Client(base_url=url) as client:
        text = client.get("/metrics").text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert "python_info" in families
    assert "http_server_active_requests" in families
    # Both have a process collector; a family that stands there twice fails the scrape.
    assert len(families) == len(set(families))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (
            "prometheus-fastapi-instrumentator",
            {
                "http_requests_total handler=/orders/{order} method=GET status=2xx": 2,
                "http_requests_total handler=none method=GET status=4xx": 1,
                "http_request_duration_seconds_count handler=/orders/{order} method=GET": 2,
                "http_request_duration_highr_seconds_count": 3,
                "http_response_size_bytes_sum handler=/orders/{order}": 2,
            },
        ),
        (
            "starlette_exporter",
            {
                "starlette_requests_total "
                "app_name=starlette method=GET path=/orders/{order} status_code=200": 2,
            },
        ),
        (
            aliases("starlette_exporter", app_name="shop", prefix="web"),
            {"web_requests_total app_name=shop method=GET path=/orders/{order} status_code=200": 2},
        ),
    ],
)
def test_a_peers_old_names_stay_alive(
    asked: dict[str, Any], peer: Any, expected: dict[str, float]
) -> None:
    app = FastAPI()
    instrument(app, aliases=(peer,), **asked)

    @app.get("/orders/{order}")
    def order(order: int) -> int:
        return order

    with serving(app) as url, httpx2.Client(base_url=url) as client:
        for path in ("/orders/1", "/orders/2", "/nowhere"):
            client.get(path)
        samples = _samples(client.get("/metrics").text)
    assert {name: samples.get(name) for name in expected} == expected


def test_old_names_that_the_catalogue_takes_itself_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InstrumentError, match="declares http_requests_total as well"):
        instrument(
            FastAPI(),
            aliases=("prometheus-fastapi-instrumentator",),
            catalogue=Catalogue(service="shop", metrics=(OWN,)),
            **asked,
        )


def test_instrumenting_an_app_again_gives_the_first_telemetry_and_says_nothing(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    first = instrument(app, **asked)
    with caplog.at_level(logging.WARNING):
        assert instrument(app, **asked) is first
    assert caplog.records == []
    with serving(app) as url, httpx2.Client(base_url=url) as client:
        client.get("/nowhere")
        assert instrument(app, **asked) is first
        samples = _samples(client.get("/metrics").text)
    counts = [
        v for n, v in samples.items() if n.startswith("http_server_request_duration_seconds_count")
    ]
    assert counts == [1]


def test_instrumenting_an_app_again_as_something_else_is_one_warning(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    first = instrument(app, **asked, logs=False)
    with caplog.at_level(logging.WARNING):
        assert instrument(app, **{**asked, "service_name": "store"}) is first
    (record,) = caplog.records
    assert "the name 'store' is not taken over" in record.getMessage()


@pytest.mark.parametrize("http", HTTP)
def test_a_mounted_app_that_is_instrumented_too_answers_and_each_counts_its_own(
    asked: dict[str, Any], http: Any
) -> None:
    def part(request: Request) -> Response:
        return PlainTextResponse("part")

    inner = Starlette(routes=[Route("/part/{part}", part)])
    app = Starlette(routes=[Mount("/inner", app=inner)])
    outside = instrument(app, **asked)
    inside = instrument(inner, **asked)
    with serving(app, http=http) as url, httpx2.Client(base_url=url) as client:
        assert client.get("/inner/part/1").text == "part"
    inside.close()  # a mounted app's lifespan is not run
    for telemetry in (outside, inside):
        assert conformance(telemetry).faults == ()
    routes = {
        name.split("http_route=")[1].split()[0]
        for telemetry in (outside,)
        for name in _samples(telemetry.metrics().decode())
        if name.startswith("http_server_request_duration_seconds_count")
    }
    assert routes == {"/inner/part/{part}"}
