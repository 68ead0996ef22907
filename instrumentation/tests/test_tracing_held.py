"""The server span of a sampled request tells of its failure, also where it was ended before the exception came out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware.base import RequestResponseEndpoint
from starlette.routing import Route

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, TRACED
from taskscope.requests.exchange import Exchange
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.tracing.guarded import Guarded

Way = Literal[True, "native"]
WAYS: tuple[Way, ...] = (True, "native")
FAILING = {"/sub/boom": "in the mounted", "/stream": "midway", "/boom": "plainly"}


class Service:
    """A service whose requests are sampled, and the spans that have left."""

    def __init__(
        self, way: Way = True, *, layered: bool = False, app: Any = None, **settings: Any
    ) -> None:
        self.app = app or _service(self, layered=layered)
        self.telemetry: Telemetry = instrument(
            self.app,
            service_name="test",
            service_version="1",
            logs=False,
            tracing=way,
            settings=Settings(**settings),
        )
        assert self.telemetry.tracing is not None
        self.tracing = self.telemetry.tracing
        self.provider = self.tracing.provider
        self.memory = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def ask(self, *paths: str) -> None:
        async def one(path: str) -> None:
            transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                await client.get(path)

        async def all_of_them() -> None:
            await asyncio.gather(*[one(path) for path in paths])

        asyncio.run(all_of_them())

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.memory.get_finished_spans()

    @property
    def held(self) -> int:
        processors = self.provider._active_span_processor
        assert isinstance(processors, Guarded)
        return len(processors._held)

    @property
    def errors(self) -> float:
        return value(self.telemetry.registry, LIBRARY_ERRORS, component="tracing")


async def _breaking() -> AsyncIterator[bytes]:
    yield b"x"
    raise RuntimeError("midway")


def _service(service: Service, *, layered: bool) -> FastAPI:
    app = FastAPI()
    _add_failing(app)
    _add_working(app, service)

    if layered:

        @app.middleware("http")
        async def passing(request: Request, follow: RequestResponseEndpoint) -> Response:
            return await follow(request)

    return app


def _add_failing(app: FastAPI) -> None:
    below = FastAPI()

    @below.get("/boom")
    async def boom_below() -> None:
        raise RuntimeError("in the mounted")

    app.mount("/sub", below)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("plainly")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(_breaking())

    @app.get("/tried")
    async def tried() -> None:
        for _ in range(3):
            trace.get_current_span().record_exception(RuntimeError("refused"))
        raise RuntimeError("refused")

    @app.get("/cut")
    async def cut() -> Response:
        return _Cut()


def _add_working(app: FastAPI, service: Service) -> None:
    app.state.seen = []

    @app.get("/things/")
    async def things() -> None:
        with service.provider.get_tracer("own").start_as_current_span("child"):
            pass
        app.state.seen.append([span.name for span in service.spans])

    @app.get("/work")
    async def work(tasks: BackgroundTasks) -> None:
        async def flush() -> None:
            app.state.seen.append([span.name for span in service.spans])
            service.provider.force_flush()
            app.state.seen.append([span.name for span in service.spans])

        tasks.add_task(flush)

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()


class _Cut(Response):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})


def _told(span: ReadableSpan) -> tuple[StatusCode, str | None, list[object]]:
    messages = [(event.attributes or {}).get("exception.message") for event in span.events]
    return span.status.status_code, span.status.description, list(messages)


@pytest.mark.parametrize("ratio", [1.0, 0.0])
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("path", FAILING)
@pytest.mark.parametrize("way", WAYS)
def test_a_failure_is_an_error_with_one_exception_whether_it_was_sampled_or_not(
    way: Way, path: str, layered: bool, ratio: float
) -> None:
    service = Service(way, layered=layered, trace_ratio=ratio)
    service.ask(path)
    (span,) = service.spans
    message = FAILING[path]
    assert span.name == f"GET {path}"
    assert _told(span) == (StatusCode.ERROR, f"RuntimeError: {message}", [message])
    assert (span.attributes or {})["error.type"] in ("RuntimeError", "500")
    assert (service.held, service.errors) == (0, 0)
    decision = "sampled" if ratio else "late"
    assert value(service.telemetry.registry, TRACED, decision=decision) == 1


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_breaks_over_a_socket_has_its_exception_once(
    way: Way, http: Literal["h11", "httptools"]
) -> None:
    service = Service(way, layered=True)
    with serving(service.app, http=http) as url, suppress(httpx2.RemoteProtocolError):
        httpx2.get(f"{url}/stream")
    (span,) = service.spans
    assert _told(span) == (StatusCode.ERROR, "RuntimeError: midway", ["midway"])


@pytest.mark.parametrize("path", ["/stream", "/boom"])
def test_starlette_tells_of_an_exception_once(path: str) -> None:
    async def stream(request: Request) -> Response:
        del request
        return StreamingResponse(_breaking())

    async def boom(request: Request) -> Response:
        raise RuntimeError("plainly")

    service = Service(app=Starlette(routes=[Route("/stream", stream), Route("/boom", boom)]))
    service.ask(path)
    (span,) = service.spans
    assert _told(span) == (StatusCode.ERROR, f"RuntimeError: {FAILING[path]}", [FAILING[path]])


@pytest.mark.parametrize("way", WAYS)
def test_what_the_service_told_of_itself_stays(way: Way) -> None:
    service = Service(way)
    service.ask("/tried")
    (span,) = service.spans
    assert len(span.events) == 4


@pytest.mark.parametrize("way", WAYS)
def test_a_response_without_an_end_is_an_error(way: Way) -> None:
    service = Service(way)
    with serving(service.app) as url, suppress(httpx2.RemoteProtocolError):
        httpx2.get(f"{url}/cut")
    (span,) = service.spans
    assert span.status.status_code is StatusCode.ERROR
    assert "error.type" in (span.attributes or {})


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_to_a_route_has_no_route_in_its_name_nor_in_its_attributes(way: Way) -> None:
    service = Service(way)
    service.ask("/things")
    (span,) = service.spans
    assert span.name == "GET"
    assert "http.route" not in (span.attributes or {})


@pytest.mark.parametrize("way", WAYS)
def test_a_child_leaves_when_it_ends(way: Way) -> None:
    service = Service(way)
    service.ask("/things/")
    assert service.app.state.seen == [["child"]]
    assert [span.name for span in service.spans] == ["child", "GET /things/"]


@pytest.mark.parametrize("way", WAYS)
def test_a_flush_hands_on_what_is_held_and_it_leaves_once(way: Way) -> None:
    service = Service(way)
    service.ask("/work")
    assert service.app.state.seen == [[], ["GET /work"]]
    assert len(service.spans) == 1
    assert (service.held, service.errors) == (0, 0)


class _Ends(SpanProcessor):
    def __init__(self) -> None:
        self.times: list[int | None] = []

    def _on_ending(self, span: Any) -> None:
        self.times.append(span.end_time)


@pytest.mark.parametrize("way", WAYS)
def test_a_held_span_ended_when_it_did(way: Way) -> None:
    service, ends = Service(way), _Ends()
    service.provider.add_span_processor(ends)
    service.ask("/sub/boom", "/work")
    assert sorted(span.end_time or 0 for span in service.spans) == ends.times


@pytest.mark.parametrize("way", WAYS)
def test_a_websockets_span_is_not_held(way: Way) -> None:
    service = Service(way)
    with TestClient(service.app).websocket_connect("/chat"):
        pass
    spans = [span for span in service.spans if span.kind is SpanKind.SERVER]
    assert [span.name for span in spans] == ["WS /chat"]
    assert service.held == 0


@pytest.mark.parametrize("planted", ["corrected", "Guarded._hold"])
@pytest.mark.parametrize("way", WAYS)
def test_when_holding_or_correcting_fails_the_span_leaves_as_it_is_and_that_is_counted(
    way: Way, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise RuntimeError("planted")

    service = Service(way)
    monkeypatch.setattr(f"taskscope.tracing.guarded.{planted}", raising)
    service.ask("/sub/boom")
    assert [span.name for span in service.spans] == ["GET /sub/boom"]
    assert (service.held, service.errors) == (0, 1)


def test_a_span_whose_request_has_no_close_leaves_at_the_services_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Exchange, "_tell", lambda *_: None)
    service = Service()
    service.ask("/boom")
    assert (service.spans, service.held) == ((), 1)
    service.tracing.close()
    assert ([span.name for span in service.spans], service.held) == (["GET /boom"], 0)


def test_of_too_many_held_spans_the_oldest_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exchange, "_tell", lambda *_: None)
    monkeypatch.setattr("taskscope.tracing.guarded.MOST_HELD", 2)
    service = Service()
    for path in ("/boom", "/stream", "/sub/boom", "/things/"):
        service.ask(path)
    assert [span.name for span in service.spans] == ["GET /boom", "child", "GET /stream"]
    assert service.held == 2
