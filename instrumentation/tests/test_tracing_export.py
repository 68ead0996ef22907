"""Spans on their way out: over OTLP, after a restart and a fork too, and never for longer than a stop may take."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until
from taskscope.tracing.batches import Batches


class _Receiver(BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver."""

    names: ClassVar[list[str]] = []
    status: ClassVar[int] = 200
    takes: ClassVar[str] = "/v1/traces"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == self.takes and self.status == 200:
            sent = ExportTraceServiceRequest.FromString(body)
            self.names.extend(
                span.name
                for resource in sent.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            )
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        del args


@contextmanager
def _receiver(status: int = 200, takes: str = "/v1/traces") -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (_Receiver,), {"names": [], "status": status, "takes": takes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.names
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _service(**settings: Any) -> tuple[FastAPI, Telemetry]:
    app = FastAPI()

    @app.get("/users/{user_id}")
    async def user(user_id: int) -> int:
        if user_id == 13:
            raise RuntimeError("broken")
        return user_id

    telemetry = instrument(
        app, service_name="test", service_version="1", logs=False, settings=Settings(**settings)
    )
    return app, telemetry


def _ask(app: FastAPI, path: str) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(request())


def _errors(telemetry: Telemetry) -> float:
    return value(telemetry.registry, LIBRARY_ERRORS, component="tracing")


def test_spans_are_exported_over_otlp_when_the_app_stops() -> None:
    with _receiver() as (endpoint, names):
        app, _ = _service(otlp_endpoint=endpoint)
        with serving(app) as url:
            httpx2.get(f"{url}/users/7")
        assert names == ["GET /users/{user_id}"]


def test_the_endpoint_of_traces_is_taken_as_it_is() -> None:
    with _receiver(takes="/in") as (endpoint, names):
        app, telemetry = _service(
            otlp_endpoint="http://127.0.0.1:1", otlp_traces_endpoint=f"{endpoint}/in"
        )
        _ask(app, "/users/7")
        telemetry.close()
        assert names == ["GET /users/{user_id}"]


def test_late_spans_are_exported_too() -> None:
    with _receiver() as (endpoint, names):
        app, telemetry = _service(otlp_endpoint=endpoint, trace_ratio=0.0)
        assert _ask(app, "/users/13").status_code == 500
        telemetry.close()
        assert names == ["GET /users/{user_id}"]


def test_an_app_that_starts_again_exports_again() -> None:
    with _receiver() as (endpoint, names):
        app, _ = _service(otlp_endpoint=endpoint)
        for runs in (1, 2, 3):
            with TestClient(app) as client:
                client.get("/users/7")
            assert names == ["GET /users/{user_id}"] * runs


def test_what_ends_after_the_close_is_dropped_and_hurts_nobody() -> None:
    with _receiver() as (endpoint, names):
        app, telemetry = _service(otlp_endpoint=endpoint)
        telemetry.close()
        assert _ask(app, "/users/7").json() == 7
        assert _errors(telemetry) == 0
        assert names == []


def test_a_processor_of_the_services_own_works_on_after_a_restart() -> None:
    app, telemetry = _service()
    ended: list[str] = []

    class Own(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span.name)

        def shutdown(self) -> None:
            ended.append("shut down")

    assert telemetry.tracing is not None
    telemetry.tracing.provider.add_span_processor(Own())
    for _ in range(2):
        with TestClient(app) as client:
            client.get("/users/7")
    assert ended == ["GET /users/{user_id}"] * 2


def test_a_receiver_that_refuses_is_counted_and_hurts_nobody() -> None:
    with _receiver(status=400) as (endpoint, _):
        app, telemetry = _service(otlp_endpoint=endpoint)
        assert _ask(app, "/users/7").json() == 7
        telemetry.close()
        assert _errors(telemetry) == 1


def test_closing_takes_bounded_time_when_nobody_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")  # seconds that the exporter tries again
    app, telemetry = _service(otlp_endpoint="http://127.0.0.1:1")
    threads = set(threading.enumerate())
    _ask(app, "/users/7")
    began = monotonic()
    assert telemetry.tracing is not None
    telemetry.tracing.close(timeout_s=0.5)
    assert monotonic() - began < 2
    until(lambda: threads >= set(threading.enumerate()), within_s=30, saying="its threads end")


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:1"])
def test_no_thread_runs_before_the_first_span(endpoint: str | None) -> None:
    before = threading.active_count()
    _, telemetry = _service(otlp_endpoint=endpoint)
    assert threading.active_count() == before
    telemetry.close()


class _Made(SpanProcessor):
    """What a Batches makes, and what became of it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.told.append(span.name)

    def shutdown(self) -> None:
        self.told.append("shut down")


def test_a_start_that_follows_a_start_makes_nothing_new() -> None:
    made: list[_Made] = []

    def make() -> SpanProcessor:
        made.append(_Made())
        return made[-1]

    batches = Batches(make)
    batches.start()
    batches.start()
    batches.shutdown()
    batches.shutdown()
    batches.start()
    assert [each.told for each in made] == [["shut down"], []]


_FORKS = """
import asyncio, os, sys
import httpx2
from fastapi import FastAPI
from taskscope import Settings, instrument

app = FastAPI()
app.add_api_route("/users/{user_id}", lambda user_id: user_id)
telemetry = instrument(
    app, service_name="test", service_version="1", logs=False,
    settings=Settings(otlp_endpoint=sys.argv[1]),
)

async def ask():
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/users/7")).status_code == 200

if sys.argv[2] == "used":  # the parent has a thread, a connection and a span on its way when it forks
    asyncio.run(ask())
children = []
for number in range(20):
    child = os.fork()
    if child == 0:
        telemetry.tracing.start()
        asyncio.run(ask())
        telemetry.tracing.close(timeout_s=40)  # not what is tested, and twenty share the machine
        os._exit(0)
    children.append(child)
ended = [os.waitpid(child, 0)[1] for child in children]
telemetry.tracing.close(timeout_s=40)
sys.exit(any(ended))
"""


@pytest.mark.parametrize(("parent", "spans"), [("fresh", 20), ("used", 21)])
def test_twenty_forks_export_their_spans_and_none_twice(parent: str, spans: int) -> None:
    with _receiver() as (endpoint, names):
        command = [sys.executable, "-W", "ignore", "-c", _FORKS, endpoint, parent]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert names == ["GET /users/{user_id}"] * spans


_FORGETFUL = """
import asyncio, sys
import httpx2
from fastapi import FastAPI
from taskscope import Settings, instrument

app = FastAPI()
app.add_api_route("/users/{user_id}", lambda user_id: user_id)
instrument(
    app, service_name="test", service_version="1", logs=False,
    settings=Settings(otlp_endpoint=sys.argv[1]),
)

async def ask():
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/users/7")

asyncio.run(ask())
"""


def test_a_process_that_never_closed_exports_at_its_end() -> None:
    with _receiver() as (endpoint, names):
        command = [sys.executable, "-c", _FORGETFUL, endpoint]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert names == ["GET /users/{user_id}"]


def test_a_process_that_never_closed_ends_in_bounded_time_when_nobody_receives() -> None:
    command = [sys.executable, "-c", _FORGETFUL, "http://127.0.0.1:1"]
    began = monotonic()
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0
    assert monotonic() - began < 20
