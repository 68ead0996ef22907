"""A hostile caller: it cannot raise the share of traces, put its words into our telemetry, or make us log them."""

from __future__ import annotations

import asyncio
import logging
import socket
from random import Random
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, propagate
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import TRACED
from taskscope.testing.metrics import value
from taskscope.testing.server import serving

Way = Literal[True, "native"]
WAYS: tuple[Way, ...] = (True, "native")
Parser = Literal["h11", "httptools"]
MOST = 10 + 3 * 3.15  # of a thousand at 1 %, and 3 sigma


def _service(way: Way, **settings: Any) -> tuple[FastAPI, Telemetry, InMemorySpanExporter]:
    app = FastAPI()

    @app.get("/seen")
    async def seen() -> dict[str, Any]:
        outgoing: dict[str, str] = {}
        propagate.inject(outgoing)
        return {"baggage": dict(baggage.get_all()), "sent": outgoing}

    telemetry = instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=way,
        settings=Settings(**settings),
    )
    memory = InMemorySpanExporter()
    assert telemetry.tracing is not None
    telemetry.tracing.provider.add_span_processor(SimpleSpanProcessor(memory))
    return app, telemetry, memory


def _ask(app: FastAPI, asked: list[dict[str, str]]) -> list[httpx2.Response]:
    async def requests() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.get("/seen", headers=headers) for headers in asked]

    return asyncio.run(requests())


def _spoofed(count: int) -> list[str]:
    random = Random(29)
    return [
        f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01" for _ in range(count)
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_spoofed_flags_are_sampled_at_the_services_own_share(way: Way) -> None:
    app, telemetry, memory = _service(way, trace_ratio=0.01)
    parents = _spoofed(1_000)
    _ask(app, [{"traceparent": parent} for parent in parents])
    spans = memory.get_finished_spans()
    assert len(spans) <= MOST
    theirs = {int(parent[3:35], 16) for parent in parents}
    assert not theirs.intersection(span.context.trace_id for span in spans if span.context)
    assert all(link.context.trace_id in theirs for span in spans for link in span.links)
    assert value(telemetry.registry, TRACED) == 1_000
    # On a busy machine a request may be slow enough for a span of its own.
    kept = [value(telemetry.registry, TRACED, decision=each) for each in ("sampled", "late")]
    assert sum(kept) == len(spans)


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_thousand_spoofed_flags_over_a_socket_are_sampled_at_the_services_own_share(
    http: Parser,
) -> None:
    app, _, memory = _service(True, trace_ratio=0.01)
    with serving(app, http=http) as url:
        answers = _pipelined(url, _spoofed(1_000))
    assert answers == 1_000
    assert len(memory.get_finished_spans()) <= MOST


def _pipelined(url: str, parents: list[str]) -> int:
    """Requests one after the other on one connection; how many were answered with 200."""
    address = urlsplit(url)
    answered = 0
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        for parent in parents:
            request = f"GET /seen HTTP/1.1\r\nHost: x\r\nTraceparent: {parent}\r\n\r\n"
            connection.sendall(request.encode())
            answered += _answer(connection).startswith(b"HTTP/1.1 200")
    return answered


def _answer(connection: socket.socket) -> bytes:
    received = b""
    while b"}}" not in received:
        received += connection.recv(65_536)
    return received


@pytest.mark.parametrize("way", WAYS)
def test_a_flood_from_a_trusted_hop_is_capped_too(way: Way) -> None:
    app, telemetry, memory = _service(
        way, trusted_hops=("127.0.0.1",), max_traces_per_second=0.000_1
    )
    _ask(app, [{"traceparent": parent} for parent in _spoofed(50)])
    assert len(memory.get_finished_spans()) == 1
    assert value(telemetry.registry, TRACED, decision="capped") == 49


HOSTILE_BAGGAGE = (
    ",".join(f"key{number}={'v' * 50}" for number in range(1_100)),  # 60 kB
    ",".join("=;" for _ in range(179)),
    "a=\x1b[31mred,b=%0d%0aforged,=,;;;,x",
    "user=mallory",
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("sent", HOSTILE_BAGGAGE, ids=("60kB", "malformed", "escapes", "plain"))
def test_baggage_is_neither_read_nor_logged_nor_sent_on(
    caplog: pytest.LogCaptureFixture, way: Way, ratio: float, sent: str
) -> None:
    app, _, memory = _service(way, trace_ratio=ratio)
    with caplog.at_level(logging.DEBUG, logger="opentelemetry"):
        (answer,) = _ask(app, [{"baggage": sent}])
    assert answer.json()["baggage"] == {}
    assert "baggage" not in answer.json()["sent"]
    assert [each for each in caplog.records if each.name.startswith("opentelemetry")] == []
    assert len(memory.get_finished_spans()) == ratio


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
def test_a_tracestate_that_is_malformed_is_neither_kept_nor_logged(
    caplog: pytest.LogCaptureFixture, way: Way, ratio: float, trusted: tuple[str, ...]
) -> None:
    app, _, _ = _service(way, trace_ratio=ratio, trusted_hops=trusted)
    sent = {"traceparent": _spoofed(1)[0], "tracestate": "evil=\x1b[31m,UPPER=1"}
    with caplog.at_level(logging.DEBUG, logger="opentelemetry"):
        (answer,) = _ask(app, [sent])
    assert "tracestate" not in answer.json()["sent"]
    assert [each for each in caplog.records if each.name.startswith("opentelemetry")] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("ratio", "flag"), [(0.0, 0), (1.0, 1)])
def test_other_services_are_told_the_trace_and_the_decision(
    way: Way, ratio: float, flag: int
) -> None:
    app, _, _ = _service(way, trace_ratio=ratio)
    (answer,) = _ask(app, [{}])
    version, trace_id, span_id, flags = answer.json()["sent"]["traceparent"].split("-")
    assert (version, len(trace_id), len(span_id)) == ("00", 32, 16)
    assert int(flags, 16) & 1 == flag
