"""What a receiver of OTLP gets of a service on a real socket: every request once, its own spans below it, no secret."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

from taskscope import Settings, Telemetry, get_logger, in_context, instrument, set_user
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, LIBRARY_ERRORS
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until, until_async

Way = Literal[True, "native"]
Parser = Literal["h11", "httptools"]
Span = Callable[[str], None]

SERVER = 2
NEEDLE = "n33dle0fAHaystack"
USER = "ada@example.org"
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}
WAYS: list[tuple[Way, Parser]] = [(True, "h11"), ("native", "httptools")]
SPANS = {  # what is asked for, and the one server span of it
    "/a/1/b/2": "GET /a/{x}/b/{y}",
    "/sub/acme/items/3": "GET /sub/{tenant}/items/{item}",
    "/inst/things/9": "GET /inst/things/{thing}",
    f"/fail?password={NEEDLE}": "GET /fail",
    "/refused": "GET /refused",
    "/stream": "GET /stream",
    "/background": "GET /background",
    "/threads": "GET /threads",
    "/outlived": "GET /outlived",
    "/early": "GET",
    "/nowhere/77": "GET",
}
CHILDREN = {  # a span of the service's own, and whose child it is
    "nested": "GET /a/{x}/b/{y}",
    "thing": "GET /inst/things/{thing}",
    "task": "GET /background",
    "sync": "GET /threads",
    "pool": "GET /threads",
    "late": "GET /outlived",
    "room": "WS /rooms/{room}",
}


@dataclass
class Received:
    """What came: spans, and the bytes that they came in."""

    spans: list[Any]
    raw: list[bytes]

    def server(self) -> list[Any]:
        return [span for span in self.spans if span.kind == SERVER]


@contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    received = Received([], [])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.raw.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    received.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def service(settings: Settings, way: Way, pool: ThreadPoolExecutor) -> tuple[FastAPI, Telemetry]:
    app = FastAPI()
    log = get_logger("app")

    def span(name: str) -> None:
        tracing = telemetry.tracing
        assert tracing is not None
        with tracing.provider.get_tracer("app").start_as_current_span(name):
            log.info(name)

    below_others(app, span)
    app.mount("/sub/{tenant}", tenant())
    app.mount("/inst", instrumented(settings, way, span))
    answers(app)
    elsewhere(app, span, pool)
    afterwards(app, span, lambda: value(telemetry.registry, ACTIVE_REQUESTS) == 0)

    @app.websocket("/rooms/{room}")
    async def room(socket: WebSocket, room: str) -> None:
        await socket.accept()
        span("room")
        await socket.send_text(room)
        await socket.close()

    telemetry = instrument(
        app, service_name="test", service_version="1", settings=settings, tracing=way
    )
    return app, telemetry


def below_others(app: FastAPI, span: Span) -> None:
    inner, outer = APIRouter(prefix="/b"), APIRouter(prefix="/a/{x}")

    @inner.get("/{y}")
    async def nested(x: int, y: int) -> int:
        span("nested")
        return x + y

    outer.include_router(inner)
    app.include_router(outer)


def tenant() -> FastAPI:
    mounted = FastAPI()

    @mounted.get("/items/{item}")
    async def of_tenant(item: int) -> int:
        return item

    return mounted


def instrumented(settings: Settings, way: Way, span: Span) -> FastAPI:
    app = FastAPI()

    @app.get("/things/{thing}")
    async def of_app(thing: int) -> int:
        span("thing")
        return thing

    name: dict[str, Any] = {"service_name": "inner", "service_version": "1", "logs": False}
    instrument(app, settings=settings, tracing=way, **name)
    return app


def answers(app: FastAPI) -> None:
    @app.get("/fail")
    async def fail() -> None:
        raise ValueError(f"password={NEEDLE} token: Bearer {NEEDLE}")

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(503)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> Any:
            yield b"a"
            yield b"b"

        return StreamingResponse(parts())

    @app.middleware("http")
    async def early(request: Any, call_next: Any) -> Any:
        if request.url.path == "/early":
            raise KeyError("before any route")
        return await call_next(request)


def elsewhere(app: FastAPI, span: Span, pool: ThreadPoolExecutor) -> None:
    def signed_in() -> None:
        set_user(USER)

    @app.get("/threads", dependencies=[Depends(signed_in)])
    def threads() -> None:
        span("sync")
        pool.submit(in_context(span), "pool").result()


def afterwards(app: FastAPI, span: Span, over: Callable[[], bool]) -> None:
    kept: set[asyncio.Task[None]] = set()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(span, "task")

    @app.get("/outlived")
    async def outlived() -> None:
        async def on() -> None:
            await until_async(over, within_s=5, saying="the request is over")
            set_user("somebody else")  # nobody's series, span or access line changes any more
            span("late")

        kept.add(asyncio.get_running_loop().create_task(on()))


@dataclass
class Served:
    """One round of all requests: what was received, written, exposed and answered."""

    received: Received
    lines: list[dict[str, Any]]
    page: str
    telemetry: Telemetry


@pytest.fixture(scope="module", params=WAYS, ids=["instrumentor-h11", "native-httptools"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    way, http = request.param
    spool = tmp_path_factory.mktemp("spool")
    with receiver() as (endpoint, received), ThreadPoolExecutor(2) as pool:
        app, telemetry = service(Settings(otlp_endpoint=endpoint, spool=spool), way, pool)
        with serving(app, http=http) as base:
            for path in SPANS:
                headers = {"user-agent": f"Bearer {NEEDLE}", "baggage": f"who={NEEDLE}"}
                httpx2.get(base + path, headers=headers)
            with connect(f"{base.replace('http', 'ws')}/rooms/blue") as socket:
                socket.recv()

            def told() -> bool:
                return any(line["message"] == "late" for line in read_lines(spool))

            until(told, within_s=5, saying="the task that outlives its request has told so")
            page = httpx2.get(f"{base}/metrics", headers=OPENMETRICS).text
        return Served(received, list(read_lines(spool)), page, telemetry)


def test_every_request_is_one_server_span_named_by_its_template(served: Served) -> None:
    assert Counter(span.name for span in served.received.server()) == Counter(
        [*SPANS.values(), "WS /rooms/{room}"]
    )


def test_every_server_span_has_the_ids_of_its_access_line(served: Served) -> None:
    spans = {
        (span.trace_id.hex(), span.span_id.hex())
        for span in served.received.server()
        if not span.name.startswith("WS")
    }
    written = [
        (line["trace.id"], line["span.id"])
        for line in served.lines
        if line["message"] == "request served"
    ]
    assert (set(written), len(written)) == (spans, len(SPANS))


def test_the_services_own_spans_are_children_wherever_they_ran(served: Served) -> None:
    names = {span.span_id: span.name for span in served.received.server()}
    own = [span for span in served.received.spans if span.kind != SERVER]
    assert {span.name: names.get(span.parent_span_id) for span in own} == CHILDREN
    assert len(own) == len(CHILDREN)


def test_a_line_within_a_span_bears_that_spans_ids(served: Served) -> None:
    spans = {span.name: span for span in served.received.spans}
    lines = {line["message"]: line for line in served.lines}
    for name in CHILDREN:
        assert lines[name]["span.id"] == spans[name].span_id.hex()
        assert lines[name]["trace.id"] == spans[name].trace_id.hex()


def test_a_user_known_in_a_thread_is_in_span_and_lines_and_no_other_request_has_one(
    served: Served,
) -> None:
    users = {
        span.name: attribute.value.string_value
        for span in served.received.server()
        for attribute in span.attributes
        if attribute.key == "user.hash"
    }
    lines = {line["message"]: line for line in served.lines}
    (of_line,) = {
        line["user.hash"]
        for line in served.lines
        if line["message"] == "request served" and "user.hash" in line
    }
    assert users == {"GET /threads": of_line}
    assert lines["pool"]["user.hash"] == lines["sync"]["user.hash"] == of_line


def test_a_failure_is_an_event_and_an_error_and_a_refusal_an_error(served: Served) -> None:
    told = {
        span.name: (span.status.code, [event.name for event in span.events])
        for span in served.received.server()
        if span.name in ("GET /fail", "GET /refused", "GET /stream")
    }
    assert told == {
        "GET /fail": (2, ["exception"]),
        "GET /refused": (2, []),
        "GET /stream": (0, []),
    }


def test_no_secret_leaves_by_span_line_or_exemplar(served: Served) -> None:
    assert "# {" in served.page
    everything = (
        b"".join(served.received.raw).decode("latin-1") + json.dumps(served.lines) + served.page
    )
    assert [secret for secret in (NEEDLE, USER) if secret in everything] == []


def test_nothing_failed_inside_and_nothing_is_left_open(served: Served) -> None:
    registry = served.telemetry.registry
    assert (value(registry, LIBRARY_ERRORS), value(registry, ACTIVE_REQUESTS)) == (0, 0)
