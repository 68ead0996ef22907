"""The middleware: one request, one observation, under its labels, with an id of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from prometheus_client.registry import CollectorRegistry
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    LIBRARY_TIME,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.context import current_request
from taskscope.requests.exchange import TIMED_EVERY
from taskscope.testing.metrics import value
from taskscope.testing.server import serving


def service() -> FastAPI:  # noqa: C901 - a list of small routes
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    @app.get("/late")
    async def late() -> None:
        raise TimeoutError

    @app.get("/gateway")
    async def gateway() -> Response:
        return Response(status_code=504)

    @app.get("/big")
    async def big() -> PlainTextResponse:
        return PlainTextResponse("x" * 10_000)

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("broken in the middle")

        return StreamingResponse(parts())

    @app.get("/context")
    async def context() -> dict[str, str | None]:
        request = current_request.get()
        assert request is not None
        return {"id": request.request_id, "client": request.client_request_id}

    @app.get("/own-id")
    async def own_id() -> Response:
        return Response(headers={"x-request-id": "mine"})

    @app.get("/livez")
    async def livez() -> None:
        return None

    return app


def measured(app: FastAPI, **settings: Any) -> Telemetry:
    return instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(**settings),
    )


def count(registry: CollectorRegistry, **labels: str) -> float:
    return value(registry, REQUEST_DURATION, part="count", **labels)


def ask(app: Any, method: str, path: str, **options: Any) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())


@pytest.fixture
def app() -> FastAPI:
    return service()


@pytest.mark.parametrize(
    ("method", "path", "status", "route", "outcome"),
    [
        ("GET", "/items/7", "200", "/items/{item_id}", "ok"),
        ("GET", "/items/seven", "422", "/items/{item_id}", "client_error"),
        ("POST", "/items/7", "405", "/items/{item_id}", "client_error"),
        ("GET", "/nothing/here", "404", "unmatched", "client_error"),
        ("GET", "/items/7/", "307", "unmatched", "ok"),
        ("GET", "/boom", "500", "/boom", "server_error"),
        ("GET", "/late", "500", "/late", "timeout"),
        ("GET", "/gateway", "504", "/gateway", "timeout"),
        ("GET", "/half", "200", "/half", "server_error"),
    ],
)
def test_a_request_is_counted_once_under_its_labels(
    app: FastAPI, method: str, path: str, status: str, route: str, outcome: str
) -> None:
    registry = measured(app).registry
    ask(app, method, path)
    labels = {
        "http_request_method": method,
        "http_response_status_code": status,
        "http_route": route,
        "outcome": outcome,
    }
    assert (count(registry), count(registry, **labels)) == (1, 1)


def test_an_error_in_an_inner_middleware_is_a_server_error(app: FastAPI) -> None:
    @app.middleware("http")
    async def broken(request: Request, call_next: object) -> Response:
        raise RuntimeError("broken before the router")

    registry = measured(app).registry
    assert ask(app, "GET", "/items/7").status_code == 500
    assert count(registry, http_route="unmatched", outcome="server_error") == 1


def test_a_middleware_that_is_added_later_is_measured_too(app: FastAPI) -> None:
    registry = measured(app).registry
    app.add_middleware(GZipMiddleware, minimum_size=100)
    ask(app, "GET", "/big", headers={"accept-encoding": "gzip"})
    assert value(registry, RESPONSE_SIZE, part="sum") < 1_000


def test_an_exception_handler_of_the_service_still_answers(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    async def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"told": str(error)}, status_code=500)

    registry = measured(app).registry
    assert ask(app, "GET", "/boom").json() == {"told": "broken"}
    assert count(registry, outcome="server_error") == 1


def test_the_route_is_known_behind_a_base_http_middleware(app: FastAPI) -> None:
    class Passing(BaseHTTPMiddleware):
        pass

    app.add_middleware(Passing, dispatch=lambda request, call_next: call_next(request))
    registry = measured(app).registry
    ask(app, "GET", "/items/7")
    assert count(registry, http_route="/items/{item_id}", outcome="ok") == 1


def test_bytes_are_counted_from_the_stream(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "GET", "/big")
    assert value(registry, RESPONSE_SIZE, part="sum", http_route="/big") == 10_000


def test_a_file_that_the_server_sends_itself_is_a_complete_answer(
    app: FastAPI, tmp_path: Path
) -> None:
    file = tmp_path / "file.txt"
    file.write_text("x")
    app.add_api_route("/file", lambda: FileResponse(file))
    registry = measured(app).registry
    sent: list[str] = []

    async def able(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            sent.append(message["type"])

        scope["extensions"] = {"http.response.pathsend": {}}
        await app(scope, receive, note)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ask(able, "GET", "/file")
    assert sent[-1] == "http.response.pathsend"
    assert count(registry, http_route="/file", outcome="ok") == 1


def test_a_head_request_sends_no_bytes(app: FastAPI) -> None:
    app.add_api_route("/head", lambda: PlainTextResponse("body"), methods=["HEAD"])
    registry = measured(app).registry
    ask(app, "HEAD", "/head")
    assert value(registry, RESPONSE_SIZE, part="sum") == 0


def test_a_file_that_the_server_sends_counts_the_bytes_that_it_promised(
    app: FastAPI, tmp_path: Path
) -> None:
    file = tmp_path / "file.txt"
    file.write_text("x" * 5_000)
    app.add_api_route("/file", lambda: FileResponse(file))
    registry = measured(app).registry

    async def able(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] != "http.response.pathsend":
                await send(message)
            else:
                await send({"type": "http.response.body", "body": b""})

        scope["extensions"] = {"http.response.pathsend": {}}
        await app(scope, receive, note)

    ask(able, "GET", "/file")
    assert value(registry, RESPONSE_SIZE, part="sum") == 5_000


def test_every_request_has_one_first_byte_and_it_is_not_after_its_end(app: FastAPI) -> None:
    registry = measured(app).registry
    for path in ("/items/7", "/big", "/half", "/nothing"):
        ask(app, "GET", path)
    assert value(registry, TIME_TO_FIRST_BYTE) == count(registry) == 4
    first = value(registry, TIME_TO_FIRST_BYTE, part="sum")
    assert 0 < first <= value(registry, REQUEST_DURATION, part="sum")


def test_the_first_byte_of_a_stream_is_long_before_its_last(app: FastAPI) -> None:
    registry = measured(app).registry

    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"x" * 100
            await asyncio.sleep(0.2)
            yield b"x" * 100

        return StreamingResponse(parts())

    ask(app, "GET", "/slow")
    assert value(registry, TIME_TO_FIRST_BYTE, part="sum") < 0.1
    assert value(registry, REQUEST_DURATION, part="sum") >= 0.2
    assert value(registry, RESPONSE_SIZE, part="sum") == 200


def test_bytes_of_streams_at_the_same_time_are_not_shared(app: FastAPI) -> None:
    registry = measured(app).registry

    @app.get("/of/{size}")
    async def of(size: int) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(size):
                yield b"x"
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    async def both() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            await asyncio.gather(client.get("/of/100"), client.get("/of/600"))

    asyncio.run(both())
    assert value(registry, RESPONSE_SIZE, part="bucket", le="128.0") == 1
    assert value(registry, RESPONSE_SIZE, part="sum") == 700


def test_the_time_that_the_library_took_is_counted(app: FastAPI) -> None:
    registry = measured(app).registry
    for _ in range(2 * TIMED_EVERY):
        ask(app, "GET", "/items/7")
    spent = value(registry, LIBRARY_TIME)
    assert 0 < spent < value(registry, REQUEST_DURATION, part="sum")


def test_in_flight_is_one_inside_a_request_and_zero_after_it(app: FastAPI) -> None:
    seen = []
    registry = measured(app).registry
    app.add_api_route("/see", lambda: seen.append(value(registry, ACTIVE_REQUESTS)))
    ask(app, "GET", "/see")
    ask(app, "GET", "/boom")
    assert (seen, value(registry, ACTIVE_REQUESTS)) == ([1], 0)


def test_an_excluded_path_leaves_nothing(app: FastAPI) -> None:
    registry = measured(app).registry
    response = ask(app, "GET", "/livez")
    assert (response.status_code, count(registry)) == (200, 0)
    assert "x-request-id" not in response.headers


def test_under_a_path_prefix_excluded_paths_and_routes_are_the_same(app: FastAPI) -> None:
    registry = measured(app).registry
    with TestClient(app, root_path="/prefix") as client:
        client.get("/prefix/livez")
        client.get("/prefix/items/7")
    assert count(registry) == count(registry, http_route="/items/{item_id}") == 1


def test_only_the_exact_path_is_excluded(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "GET", "/livez/more")
    assert count(registry) == 1


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_an_invented_method_makes_no_label_of_its_own(
    app: FastAPI, http: Literal["h11", "httptools"]
) -> None:
    registry = measured(app).registry
    with serving(app, http=http) as url:
        for number in range(20):
            address = urlsplit(url)
            with closing(
                socket.create_connection((address.hostname, address.port or 80))
            ) as client:
                client.sendall(f"BREW{number} /items/7 HTTP/1.1\r\nHost: t\r\n\r\n".encode())
                client.recv(1024)
        with httpx2.Client(base_url=url) as client_:
            client_.get("/items/7")
    methods = {
        sample.labels["http_request_method"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }
    assert methods <= {"GET", "_OTHER"}


def test_a_scanner_does_not_make_series(app: FastAPI) -> None:
    registry = measured(app).registry

    async def scan() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            for number in range(200):
                await client.get(f"/wp-{number}.php?x={number}")

    asyncio.run(scan())
    series = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    ]
    assert [(s.labels["http_route"], s.value) for s in series] == [("unmatched", 200)]
