"""Traces: one server span per request, named by its route, without the caller's words; never at the request's cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from opentelemetry import baggage, trace
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.background import BackgroundTask
from starlette.routing import Match
from starlette.types import Scope

from taskscope import Settings, Telemetry, instrument, set_user
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.context import current_request
from taskscope.errors import InstrumentError
from taskscope.testing.metrics import value

Way = Literal[True, "native"]
WAYS: tuple[Way, ...] = (True, "native")


class Traced:
    """A service that is traced, and what it exported."""

    def __init__(
        self, way: Way = True, native: TracerProvider | None = None, **settings: Any
    ) -> None:
        self.app = _service(native)
        self.telemetry: Telemetry = instrument(
            self.app,
            service_name="test",
            service_version="1.2",
            logs=False,
            tracing=way,
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

    @app.get("/known")
    async def known() -> None:
        set_user("ann")

    @app.get("/livez")
    async def livez() -> None:
        return None

    below = FastAPI(telemetry={"tracer_provider": native})
    below.add_api_route("/things/{thing}", lambda: "found")
    app.mount("/tenants/{tenant}", below)
    deep = APIRouter(prefix="/deep")
    deep.include_router(router, prefix="/{level}")
    app.include_router(deep)
    app.include_router(router, prefix="/api")
    return app


@pytest.fixture(params=WAYS, ids=str)
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    service = Traced(request.param)
    yield service
    service.telemetry.close()


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/users/7", "GET /api/users/{user_id}"),
        ("GET", "/api/users/seven", "GET /api/users/{user_id}"),
        ("DELETE", "/api/users/7", "DELETE /api/users/{user_id}"),
        ("GET", "/deep/down/users/7", "GET /deep/{level}/users/{user_id}"),
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
    route = (traced.spans[0].attributes or {}).get("http.route")
    assert route == (name.split(" ")[1] if " " in name else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("path", ["/api/users/7", "/tenants/acme/things/7", "/livez"])
def test_fastapis_own_telemetry_adds_no_second_span(way: Way, ratio: float, path: str) -> None:
    """FastAPI traces by itself once it has a provider; apps that are mounted below do too."""
    native = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(native))
    traced = Traced(way, native=provider, trace_ratio=ratio)
    assert traced.ask("GET", path).status_code == 200
    assert len(traced.spans) == (ratio == 1.0 and path != "/livez")
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
    assert attributes["url.path"] == "/api/users/7"
    assert attributes["url.scheme"] == "http"


def test_the_span_bears_the_ids_of_the_request_and_of_its_user(traced: Traced) -> None:
    answer = traced.ask("GET", "/known")
    attributes = dict(traced.spans[0].attributes or {})
    assert attributes["http.request.id"] == answer.headers["x-request-id"]
    assert len(str(attributes["user.hash"])) >= 16


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


@pytest.mark.parametrize("way", WAYS)
def test_a_trusted_callers_trace_is_continued(way: Way) -> None:
    traced = Traced(way, trusted_hops=("127.0.0.1",))
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    seen = traced.ask("GET", "/api/users/7", traceparent=parent, tracestate="v=1").json()
    assert seen["trace"] == seen["current"] == "a" * 32
    span = traced.spans[0]
    assert span.parent is not None
    assert (span.parent.span_id, span.links) == (int("b" * 16, 16), ())
    assert span.context is not None
    assert span.context.trace_state == {"v": "1"}


def test_a_strangers_trace_is_a_link(traced: Traced) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    seen = traced.ask("GET", "/api/users/7", traceparent=parent).json()
    assert seen["trace"] != "a" * 32
    span = traced.spans[0]
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [int("b" * 16, 16)]


def test_a_malformed_trace_parent_is_a_new_trace_without_a_link(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7", traceparent="00-zz-01").json()
    assert len(seen["trace"]) == 32
    assert traced.spans[0].links == ()


def test_a_child_has_the_server_span_as_its_parent(traced: Traced) -> None:
    @traced.app.get("/child")
    async def child() -> None:
        with traced.provider.get_tracer("test").start_as_current_span("child"):
            pass

    traced.ask("GET", "/child")
    inner, server = traced.spans
    assert inner.parent == server.context
    assert inner.context != server.context


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


def test_the_query_reaches_the_app_and_not_the_span(traced: Traced) -> None:
    assert traced.ask("GET", "/echo?word=needle").json() == "needle"
    assert "needle" not in traced.spans[0].to_json()


def test_a_query_that_is_no_utf_8_is_served(traced: Traced) -> None:
    """The instrumentor decodes the query strictly; it never sees it."""
    assert traced.ask("GET", "/echo?word=a&x=%FF").status_code == 200
    assert traced.errors == 0


def test_the_app_sees_every_header_and_the_span_none_of_them(traced: Traced) -> None:
    @traced.app.get("/headers")
    async def headers(request: Request) -> list[str]:
        return [request.headers["baggage"], request.headers["traceparent"]]

    sent = {"baggage": "user=mallory", "traceparent": "needle"}
    assert traced.ask("GET", "/headers", **sent).json() == list(sent.values())
    assert "mallory" not in traced.spans[0].to_json()
    assert "needle" not in traced.spans[0].to_json()


def test_a_websocket_is_one_span_named_by_its_template(traced: Traced) -> None:
    @traced.app.websocket("/rooms/{room}")
    async def room(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json([socket.headers["baggage"], socket.query_params["word"]])
        await socket.close()

    with (
        TestClient(traced.app) as client,
        client.websocket_connect("/rooms/7?word=needle", headers={"baggage": "a=b"}) as channel,
    ):
        assert channel.receive_json() == ["a=b", "needle"]
    assert [(span.name, span.kind) for span in traced.spans] == [
        ("WS /rooms/{room}", SpanKind.SERVER)
    ]
    assert "needle" not in traced.spans[0].to_json()


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


def test_a_sampled_request_leaves_an_exemplar(traced: Traced) -> None:
    seen = traced.ask("GET", "/api/users/7").json()
    exemplars = [
        sample.exemplar.labels
        for family in traced.telemetry.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert {"trace_id": seen["trace"], "span_id": seen["span"]} in exemplars
    assert len({frozenset(each.items()) for each in exemplars}) == 1


def test_no_global_provider_is_set_and_no_class_stays_patched(traced: Traced) -> None:
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    assert type(get_meter_provider()).__name__ == "_ProxyMeterProvider"
    assert not hasattr(BackgroundTask, "_otel_original_call")


def test_an_app_that_the_instrumentor_traces_already_is_refused() -> None:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = FastAPI()
    before = BackgroundTask.__call__
    FastAPIInstrumentor.instrument_app(app)
    BackgroundTask.__call__ = before  # type: ignore[method-assign] # what the instrumentor patched
    del BackgroundTask._otel_original_call  # type: ignore[attr-defined] # and left there
    with pytest.raises(InstrumentError, match="tracing=False"):
        instrument(app, service_name="test", service_version="1", logs=False, settings=Settings())
