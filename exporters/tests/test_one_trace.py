"""One trace id from end to end: a request's exemplar on /metrics, its span, and its lines in a real Elasticsearch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskscope import Settings, instrument
from taskscope.logs import get_logger
from taskscope.testing.server import serving
from taskscope.testing.waiting import until
from taskscope_exporters.logs.inline import ship_in_background

from .conftest import Secured

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
OPENMETRICS = {"accept": "application/openmetrics-text"}
EXEMPLAR = re.compile(r"http_server_request_duration_seconds_bucket\{.*?\} \S+ # \{(.*?)\} ")


@pytest.mark.parametrize("tracing", [True, "native"])
def test_the_exemplar_the_span_and_the_lines_of_a_request_bear_one_trace_id(
    secured: Secured, tmp_path: Path, tracing: bool | Literal["native"]
) -> None:
    service = f"trace{str(tracing).lower()}"
    app = FastAPI()

    @app.get("/orders/{number}")
    async def order(number: int) -> int:
        get_logger("shop").info("order read", number=number)
        return number

    settings = Settings(spool=tmp_path / "spool", trace_ratio=1.0)
    telemetry = instrument(
        app, service_name=service, service_version="1", settings=settings, tracing=tracing
    )
    assert telemetry.tracing is not None
    spans = InMemorySpanExporter()
    telemetry.tracing.provider.add_span_processor(SimpleSpanProcessor(spans))
    ship = secured.settings(settings.spool)
    with serving(app) as url, ship_in_background(telemetry, ship):
        assert httpx2.get(f"{url}/orders/7").json() == 7
        exposition = httpx2.get(f"{url}/metrics", headers=OPENMETRICS).text
        stream = f"logs-{service}-{settings.environment}"
        until(lambda: secured.count(stream) >= 2, within_s=60, every_s=0.2)
    (exemplar,) = {dict(_labels(found))["trace_id"] for found in EXEMPLAR.findall(exposition)}
    (span,) = [span for span in spans.get_finished_spans() if span.name == "GET /orders/{number}"]
    with secured.client() as client:
        query = {"term": {"trace.id": exemplar}}
        hits = client.search(index=stream, query=query, size=10)["hits"]["hits"]
    lines = {hit["_source"]["message"]: hit["_source"] for hit in hits}
    assert f"{span.context.trace_id:032x}" == exemplar
    assert {"order read", "request served"} <= set(lines)
    assert {line["http.request.id"] for line in lines.values()} == {
        lines["request served"]["http.request.id"]
    }
    assert lines["request served"]["span.id"] == f"{span.context.span_id:016x}"


def _labels(text: str) -> list[tuple[str, str]]:
    return re.findall(r'(\w+)="([^"]*)"', text)
