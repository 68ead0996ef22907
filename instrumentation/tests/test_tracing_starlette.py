"""Apps of Starlette, and apps within apps: one server span, named by the whole template."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from taskscope import Settings, Telemetry, instrument
from taskscope.context import current_request
from taskscope.errors import InstrumentError
from taskscope.tracing.native import has_telemetry, switched_off

Way = Literal[True, "native"]
WAYS: tuple[Way, ...] = (True, "native")


async def _seen(request: Request) -> JSONResponse:
    known = current_request.get()
    assert known is not None
    current = trace.get_current_span().get_span_context()
    return JSONResponse(
        {
            "trace": known.trace_id,
            "span": known.span_id,
            "current": f"{current.span_id:016x}",
            "query": request.url.query,
        }
    )


async def _boom(_: Request) -> JSONResponse:
    raise RuntimeError("broken")


async def _room(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


def _starlette() -> Starlette:
    return Starlette(
        routes=[
            Route("/users/{user}", _seen),
            Route("/boom", _boom),
            WebSocketRoute("/rooms/{room}", _room),
            Mount("/tenants/{tenant}", routes=[Route("/things/{thing}", _seen)]),
        ]
    )


def _traced(
    app: Starlette, way: Way = True, **settings: Any
) -> tuple[Telemetry, InMemorySpanExporter]:
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
    return telemetry, memory


def _ask(app: Starlette, path: str, *, prefix: str = "") -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False, root_path=prefix)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(request())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/users/7", "GET /users/{user}"),
        ("/tenants/acme/things/7", "GET /tenants/{tenant}/things/{thing}"),
        ("/boom", "GET /boom"),
        ("/nowhere", "GET"),
    ],
)
def test_a_request_to_a_starlette_app_is_one_server_span(path: str, name: str) -> None:
    app = _starlette()
    _, memory = _traced(app)
    _ask(app, path)
    assert [(span.name, span.kind) for span in memory.get_finished_spans()] == [
        (name, SpanKind.SERVER)
    ]


def test_a_starlette_apps_websocket_is_one_server_span() -> None:
    app = _starlette()
    _, memory = _traced(app)
    with TestClient(app) as client, client.websocket_connect("/rooms/7"):
        pass
    assert [span.name for span in memory.get_finished_spans()] == ["WS /rooms/{room}"]


def test_a_starlette_apps_error_is_recorded_once() -> None:
    app = _starlette()
    _, memory = _traced(app)
    assert _ask(app, "/boom").status_code == 500
    (span,) = memory.get_finished_spans()
    assert [event.name for event in span.events] == ["exception"]
    assert not span.status.is_ok
    assert (span.attributes or {})["http.response.status_code"] == 500


def test_a_starlette_app_sees_the_query_and_the_ids_of_its_span() -> None:
    app = _starlette()
    _, memory = _traced(app)
    seen = _ask(app, "/users/7?word=needle").json()
    (span,) = memory.get_finished_spans()
    assert span.context is not None
    assert seen["query"] == "word=needle"
    assert seen["span"] == seen["current"] == f"{span.context.span_id:016x}"
    assert "needle" not in span.to_json()


def test_an_unsampled_request_to_a_starlette_app_has_ids_and_no_span() -> None:
    app = _starlette()
    _, memory = _traced(app, trace_ratio=0.0)
    seen = _ask(app, "/users/7").json()
    assert seen["span"] == seen["current"]
    assert memory.get_finished_spans() == ()


def test_a_starlette_app_has_no_native_telemetry() -> None:
    with pytest.raises(InstrumentError, match="tracing=True"):
        _traced(_starlette(), "native")


def test_a_fastapi_without_telemetry_is_known_as_one() -> None:
    class Older:
        def __init__(self, *, title: str = "x") -> None:
            self.title = title

    assert has_telemetry(FastAPI)
    assert not has_telemetry(Older)


def test_an_older_fastapi_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskscope.tracing.native.has_telemetry", lambda _: False)
    with pytest.raises(InstrumentError, match=r"install fastapi>=0\.142"):
        _traced(FastAPI(), "native")


@pytest.mark.parametrize("way", WAYS)
def test_an_instrumented_app_within_another_adds_no_span(way: Way) -> None:
    outer, inner = FastAPI(), FastAPI()
    inner.add_route("/things/{thing}", _seen)
    outer.mount("/tenants/{tenant}", inner)
    _, below = _traced(inner, way)
    _, memory = _traced(outer, way)
    seen = _ask(outer, "/tenants/acme/things/7").json()
    (span,) = memory.get_finished_spans()
    assert span.name == "GET /tenants/{tenant}/things/{thing}"
    assert span.context is not None
    assert seen["span"] == seen["current"] == f"{span.context.span_id:016x}"
    assert below.get_finished_spans() == ()


@pytest.mark.parametrize("way", WAYS)
def test_an_app_within_one_that_traces_by_itself_takes_part_in_that_trace(way: Way) -> None:
    native = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(native))
    outer, inner = FastAPI(telemetry={"tracer_provider": provider}), FastAPI()
    inner.add_route("/things/{thing}", _seen)
    outer.mount("/below", inner)
    _, memory = _traced(inner, way)
    seen = _ask(outer, "/below/things/7").json()
    servers = [span for span in native.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert len(servers) == 1
    assert servers[0].context is not None
    assert seen["trace"] == f"{servers[0].context.trace_id:032x}"
    assert memory.get_finished_spans() == ()


@pytest.mark.parametrize("way", WAYS)
def test_an_app_that_is_served_below_a_prefix_is_named_by_its_own_routes(way: Way) -> None:
    app = FastAPI()
    app.add_route("/users/{user}", _seen)
    _, memory = _traced(app, way)
    _ask(app, "/shop/users/7", prefix="/shop")
    (span,) = memory.get_finished_spans()
    assert span.name == "GET /users/{user}"
    assert (span.attributes or {})["http.route"] == "/users/{user}"


def test_fastapi_keeps_its_telemetry_where_it_is_switched_off() -> None:
    """It is not documented: this pins it."""
    app = FastAPI(telemetry={"tracer_provider": TracerProvider(shutdown_on_exit=False)})
    assert app._native_telemetry.enabled()
    assert switched_off(app)
    assert not app._native_telemetry.enabled()
    assert not switched_off(_starlette())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/static/tenants/acme/things/7", "/static/tenants/acme/none"])
def test_a_mounted_starlette_apps_span_has_one_route_in_name_and_attribute(
    way: Way, path: str
) -> None:
    app = FastAPI()
    app.mount("/static", _starlette())
    _, memory = _traced(app, way)
    _ask(app, path)
    (span,) = memory.get_finished_spans()
    route = (span.attributes or {}).get("http.route")
    assert route is not None
    assert span.name == f"GET {route}"
    assert "acme" not in span.name
