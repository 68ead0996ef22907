"""Traces: one server span per request, named by its route, without the caller's words; never at the request's cost."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from opentelemetry import baggage, trace
from opentelemetry.metrics import get_meter_provider
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind
from starlette.background import BackgroundTask
from starlette.routing import Match
from starlette.types import Scope

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.context import current_request
from taskscope.testing.metrics import value
from taskscope.testing.server import serving


class Traced:
    """A service that is traced, and what it exported."""

    def __init__(self, native: TracerProvider | None = None, **settings: Any) -> None:
        self.app = _service(native)
        self.telemetry: Telemetry = instrument(
            self.app,
            service_name="test",
            service_version="1.2",
            logs=False,
            settings=Settings(**{"instance": "one", **settings}),
        )
        self.memory = InMemorySpanExporter()
        assert self.telemetry.tracing is not None
        self.provider = self.telemetry.tracing.provider
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def ask(self, method: str, path: str, **headers: str) -> httpx2.Response:
        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(request())

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.memory.get_finished_spans()

    @property
    def errors(self) -> float:
        return value(self.telemetry.registry, LIBRARY_ERRORS, component="tracing")


def _service(native: TracerProvider | None = None) -> FastAPI:
    app = FastAPI(telemetry={"tracer_provider": native})
    router = APIRouter(prefix="/users")

    @router.get("/{user_id}")
    async def user(user_id: int) -> dict[str, Any]:
        request = current_request.get()
        assert request is not None
        span = trace.get_current_span().get_span_context()
        return {
            "trace": request.trace_id,
            "span": request.span_id,
            "current": trace.format_trace_id(span.trace_id),
            "baggage": dict(baggage.get_all()),
        }

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: None)

    @app.get("/echo")
    async def echo(word: str) -> str:
        return word

    @app.get("/livez")
    async def livez() -> None:
        return None

    below = FastAPI(telemetry={"tracer_provider": native})
    below.add_api_route("/things/{thing}", lambda: "found")
    app.mount("/tenants/{tenant}", below)
    app.include_router(router, prefix="/api")
    return app


@pytest.fixture
def traced() -> Iterator[Traced]:
    service = Traced()
    yield service
    service.telemetry.close()


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/users/7", "GET /api/users/{user_id}"),
        ("GET", "/api/users/seven", "GET /api/users/{user_id}"),
        ("DELETE", "/api/users/7", "DELETE /api/users/{user_id}"),
        ("GET", "/tenants/acme/things/7", "GET /tenants/{tenant}/things/{thing}"),
        ("GET", "/boom", "GET /boom"),
        ("GET", "/later", "GET /later"),
        ("GET", "/wp-login.php", "GET"),
        ("BREW", "/boom", "HTTP /boom"),
    ],
)
def test_a_request_is_one_server_span_named_by_its_template(
    traced: Traced, method: str, path: str, name: str
) -> None:
    traced.ask(method, path)
    assert [(span.name, span.kind) for span in traced.spans] == [(name, SpanKind.SERVER)]


@pytest.mark.parametrize("path", ["/api/users/7", "/tenants/acme/things/7", "/livez"])
def test_fastapis_own_telemetry_adds_no_second_span(path: str) -> None:
    """FastAPI traces by itself once it has a provider; apps that are mounted below do too."""
    native = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(native))
    traced = Traced(native=provider)
    assert traced.ask("GET", path).status_code == 200
    assert len(traced.spans) == (path != "/livez")
    assert native.get_finished_spans() == ()


def test_the_resource_tells_service_version_instance_and_environment(traced: Traced) -> None:
    traced.ask("GET", "/boom")
    told = traced.spans[0].resource.attributes
    assert {key: told[key] for key in told if key.startswith(("service.", "deployment."))} == {
        "service.name": "test",
        "service.version": "1.2",
        "service.instance.id": "one",
        "deployment.environment.name": "local",
    }


def test_attributes_have_the_stable_names(traced: Traced) -> None:
    traced.ask("GET", "/api/users/7")
    attributes = dict(traced.spans[0].attributes or {})
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert attributes["http.route"] == "/api/users/{user_id}"


def test_an_error_is_recorded_on_the_span(traced: Traced) -> None:
    traced.ask("GET", "/boom")
    span = traced.spans[0]
    assert not span.status.is_ok
    assert [event.name for event in span.events] == ["exception"]


def test_the_handler_and_the_context_see_the_same_trace(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7").json()
    context = traced.spans[0].context
    assert context is not None
    assert seen["trace"] == seen["current"] == trace.format_trace_id(context.trace_id)
    assert seen["span"] == trace.format_span_id(context.span_id)


def test_a_callers_trace_is_joined(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7", traceparent=f"00-{'a' * 32}-{'b' * 16}-01").json()
    assert seen["trace"] == "a" * 32


def test_a_callers_word_does_not_raise_the_share_of_traces() -> None:
    traced = Traced(trace_ratio=0.1)
    rng = random.Random(7)
    for _ in range(200):
        parent = f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01"
        traced.ask("GET", "/echo?word=a", traceparent=parent)
    traced.telemetry.close()
    assert 0 < len(traced.spans) <= 20 + 3 * 4.3  # 3 sigma


def test_routes_are_tried_once_for_a_request() -> None:
    tried: list[str] = []

    class Counted(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            tried.append(self.path)
            return super().matches(scope)

    traced = Traced()
    traced.app.router.route_class = Counted
    traced.app.add_api_route("/last", lambda: None)
    traced.ask("GET", "/last")
    traced.telemetry.close()
    assert tried == ["/last"]
    assert [span.name for span in traced.spans] == ["GET /last"]


def test_a_request_that_got_no_answer_is_named_by_its_route(traced: Traced) -> None:
    @traced.app.get("/given-up/{number}")
    async def given_up(number: int) -> None:
        raise asyncio.CancelledError

    with suppress(asyncio.CancelledError):
        traced.ask("GET", "/given-up/7")
    assert [span.name for span in traced.spans] == ["GET /given-up/{number}"]


def test_a_malformed_trace_parent_is_a_new_trace(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7", traceparent="00-zz-01").json()
    assert len(seen["trace"]) == 32


def test_baggage_is_not_extracted(traced: Traced) -> None:
    assert traced.ask("GET", "/api/users/7", baggage="user=mallory").json()["baggage"] == {}


def test_the_query_reaches_the_app_and_not_the_span(traced: Traced) -> None:
    assert traced.ask("GET", "/echo?word=needle").json() == "needle"
    assert "needle" not in traced.spans[0].to_json()


def test_a_query_that_is_no_utf_8_is_served(traced: Traced) -> None:
    """The instrumentor decodes the query strictly; it never sees it."""
    assert traced.ask("GET", "/echo?word=a&x=%FF").status_code == 200
    assert traced.errors == 0


def test_a_websocket_is_served_with_its_headers_and_query(traced: Traced) -> None:
    @traced.app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json([socket.headers["baggage"], socket.query_params["word"]])
        await socket.close()

    with (
        TestClient(traced.app) as client,
        client.websocket_connect("/ws?word=needle", headers={"baggage": "user=mallory"}) as channel,
    ):
        assert channel.receive_json() == ["user=mallory", "needle"]


def test_the_app_sees_the_baggage_header_that_the_span_does_not(traced: Traced) -> None:
    @traced.app.get("/headers")
    async def headers(request: Request) -> str:
        return request.headers["baggage"]

    assert traced.ask("GET", "/headers", baggage="user=mallory").json() == "user=mallory"
    assert "mallory" not in traced.spans[0].to_json()


def test_excluded_paths_leave_no_span(traced: Traced) -> None:
    traced.ask("GET", "/livez")
    traced.ask("GET", "/metrics")
    assert traced.spans == ()


def test_without_tracing_there_are_no_spans_and_the_request_id_remains() -> None:
    app = _service()
    telemetry = instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(),
    )

    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/api/users/7")

    response = asyncio.run(request())
    assert telemetry.tracing is None
    assert response.json()["trace"] is None
    assert len(response.headers["x-request-id"]) == 32


def test_nothing_is_sampled_at_a_ratio_of_zero_and_the_ids_are_still_there() -> None:
    traced = Traced(trace_ratio=0.0)
    seen = traced.ask("GET", "/api/users/7").json()
    assert traced.spans == ()
    assert len(seen["trace"]) == 32


def test_a_sampled_request_leaves_an_exemplar(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7").json()
    exemplars = [
        sample.exemplar.labels
        for family in traced.telemetry.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [{"trace_id": seen["trace"], "span_id": seen["span"]}]


def test_no_global_provider_is_set_and_no_class_stays_patched(traced: Traced) -> None:
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    assert type(get_meter_provider()).__name__ == "_ProxyMeterProvider"
    assert not hasattr(BackgroundTask, "_otel_original_call")


class _Failing(SpanProcessor):
    def __init__(self, hook: str) -> None:
        self._hook = hook

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002
        if self._hook == "on_start":
            raise RuntimeError("planted")

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002
        if self._hook == "on_end":
            raise RuntimeError("planted")


class _NoIds(RandomIdGenerator):
    def generate_span_id(self) -> int:
        raise RuntimeError("planted")


@pytest.mark.parametrize("hook", ["on_start", "on_end"])
def test_when_a_span_processor_fails_the_request_is_served_and_counted_as_such(
    traced: Traced, hook: str
) -> None:
    traced.provider.add_span_processor(_Failing(hook))
    assert traced.ask("GET", "/echo?word=served").json() == "served"
    assert traced.errors == 1
    assert value(traced.telemetry.registry, REQUEST_DURATION, outcome="ok") == 1


def _plant(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    for tracer in traced.provider._tracers.values():
        monkeypatch.setattr(tracer, "id_generator", _NoIds())


def test_when_the_instrumentor_fails_the_request_is_served_without_a_trace(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(traced, monkeypatch)
    response = traced.ask("GET", "/echo?word=served")
    assert (response.status_code, response.json()) == (200, "served")
    assert traced.errors == 1
    assert value(traced.telemetry.registry, REQUEST_DURATION, outcome="ok") == 1


def test_when_the_instrumentor_fails_the_services_own_error_is_still_a_500(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(traced, monkeypatch)
    assert traced.ask("GET", "/boom").status_code == 500


def test_when_the_span_cannot_be_noted_the_request_is_served(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.tracing._note_span", raising)
    assert traced.ask("GET", "/echo?word=served").json() == "served"
    assert traced.errors == 1


class _Receiver(BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver."""

    names: ClassVar[list[str]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces" and self.status == 200:
            sent = ExportTraceServiceRequest.FromString(body)
            spans = sent.resource_spans[0].scope_spans[0].spans
            self.names.extend(span.name for span in spans)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        del args


@contextmanager
def _receiver(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (_Receiver,), {"names": [], "status": status})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.names
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_spans_are_exported_over_otlp_when_the_app_stops() -> None:
    with _receiver() as (endpoint, names):
        traced = Traced(otlp_endpoint=endpoint)
        with serving(traced.app) as url:
            httpx2.get(f"{url}/api/users/7")
        assert names == ["GET /api/users/{user_id}"]


def test_a_receiver_that_refuses_is_counted_and_hurts_nobody() -> None:
    with _receiver(status=400) as (endpoint, _):
        traced = Traced(otlp_endpoint=endpoint)
        assert traced.ask("GET", "/echo?word=served").json() == "served"
        traced.telemetry.close()
        assert traced.errors == 1


def test_closing_takes_bounded_time_when_nobody_receives() -> None:
    traced = Traced(otlp_endpoint="http://127.0.0.1:1")
    traced.ask("GET", "/boom")
    began = monotonic()
    assert traced.telemetry.tracing is not None
    traced.telemetry.tracing.close(timeout_s=0.5)
    assert monotonic() - began < 2
