"""The middleware: one request, one observation, one line; and whatever breaks in it, the request is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
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
    LIBRARY_ERRORS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
)
from taskscope.context import RequestContext, current_request
from taskscope.instruments import Instruments
from taskscope.middleware import Hooks, RequestMiddleware, outcome_of
from taskscope.testing.metrics import isolated, value
from taskscope.testing.server import serving


class Line(dict[str, Any]):
    """One access line."""


class Lines:
    """An access log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(Line(event=event, level="info", **fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(Line(event=event, level="error", **fields))


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

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1024
                await asyncio.sleep(0.01)

        return StreamingResponse(parts())

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @app.get("/context")
    async def context() -> dict[str, str | None]:
        request = current_request.get()
        assert request is not None
        return {"id": request.request_id, "client": request.client_request_id}

    @app.get("/afterwards")
    async def afterwards(tasks: BackgroundTasks) -> None:
        tasks.add_task(asyncio.sleep, 0.3)

    @app.get("/own-id")
    async def own_id() -> Response:
        return Response(headers={"x-request-id": "mine"})

    @app.get("/livez")
    async def livez() -> None:
        return None

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello" if current_request.get() is None else "request")
        await socket.close()

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


def eventually(holds: Callable[[], bool], within_s: float = 5) -> bool:
    deadline = monotonic() + within_s
    while not holds() and monotonic() < deadline:
        sleep(0.01)
    return holds()


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


def test_a_background_task_is_no_part_of_a_requests_duration(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "GET", "/afterwards")
    assert count(registry, http_route="/afterwards", outcome="ok") == 1
    assert value(registry, REQUEST_DURATION, part="sum", http_route="/afterwards") < 0.3


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


def test_the_request_id_is_the_same_in_context_and_header_and_new_each_time(app: FastAPI) -> None:
    measured(app)
    first, second = ask(app, "GET", "/context"), ask(app, "GET", "/context")
    assert first.headers["x-request-id"] == first.json()["id"]
    assert len(first.json()["id"]) == 32
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-1.2_3", "abc-1.2_3"),
        ("x" * 64, "x" * 64),
        ("x" * 65, None),
        ("a b", None),
        ("a\tb", None),
        ("", None),
        ("ü", None),
    ],
)
def test_the_callers_request_id_is_kept_only_if_well_formed(
    app: FastAPI, sent: str, kept: str | None
) -> None:
    measured(app)
    response = ask(app, "GET", "/context", headers={"x-request-id": sent.encode()})
    assert response.json()["client"] == kept
    assert response.headers["x-request-id"] != sent


def test_the_services_own_request_id_header_is_not_doubled(app: FastAPI) -> None:
    measured(app)
    assert ask(app, "GET", "/own-id").headers.get_list("x-request-id") == ["mine"]


def test_the_context_ends_with_the_request(app: FastAPI) -> None:
    measured(app)

    async def after() -> RequestContext | None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/items/7")
        return current_request.get()

    assert asyncio.run(after()) is None


def test_a_websocket_passes_untouched(app: FastAPI) -> None:
    registry = measured(app).registry
    with TestClient(app) as client, client.websocket_connect("/ws") as channel:
        assert channel.receive_text() == "hello"
    assert count(registry) == 0


def test_a_cancelled_request_is_counted_once(app: FastAPI) -> None:
    registry = measured(app).registry
    entered = asyncio.Event()

    @app.get("/wait")
    async def wait() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def cancel() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            task = asyncio.create_task(client.get("/wait"))
            await entered.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert count(registry) == 1
    assert count(registry, outcome="cancelled", http_response_status_code="499") == 1
    assert value(registry, ACTIVE_REQUESTS) == 0


def _hang_up(url: str, text: str) -> None:
    address = urlsplit(url)
    with closing(socket.create_connection((address.hostname, address.port or 80))) as client:
        client.sendall(text.encode())
        client.settimeout(5)
        if text.startswith("GET"):
            client.recv(1024)


def test_a_client_that_leaves_a_stream_is_no_server_error(app: FastAPI) -> None:
    registry = measured(app).registry
    with serving(app) as url:
        _hang_up(url, "GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        assert eventually(lambda: count(registry) == 1)
    assert count(registry, outcome="disconnected", http_response_status_code="200") == 1


def test_a_client_that_leaves_while_uploading_is_no_server_error(app: FastAPI) -> None:
    registry = measured(app).registry
    with serving(app) as url:
        _hang_up(url, "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
        assert eventually(lambda: count(registry) == 1)
    assert count(registry, outcome="disconnected", http_response_status_code="499") == 1


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


# --- the access line


@pytest.fixture
def lines() -> Lines:
    return Lines()


def _logged(app: FastAPI, lines: Lines, path: str) -> Line:
    hooks = Hooks(excluded=frozenset(), failed=lambda *_: None, access_log=lines)
    build = app.build_middleware_stack
    app.middleware_stack = RequestMiddleware(build(), routed=app, hooks=hooks)
    ask(app, "GET", path)
    assert len(lines.lines) == 1
    return lines.lines[0]


def test_the_access_line_bears_the_ecs_fields(app: FastAPI, lines: Lines) -> None:
    line = _logged(app, lines, "/items/7?token=secret")
    assert 0 < line.pop("event.duration") < 5e9
    assert line == {
        "event": "request served",
        "level": "info",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/items/{item_id}",
        "http.response.body.bytes": 10,
        "url.path": "/items/7",
        "client.address": "127.0.0.1",
        "event.outcome": "success",
        "outcome": "ok",
    }


def test_a_server_error_is_a_line_of_level_error_with_its_exception(
    app: FastAPI, lines: Lines
) -> None:
    line = _logged(app, lines, "/boom")
    assert (line["level"], line["event.outcome"]) == ("error", "failure")
    assert isinstance(line["exc_info"], RuntimeError)


def test_a_client_error_is_a_line_of_level_info(app: FastAPI, lines: Lines) -> None:
    assert _logged(app, lines, "/nothing")["level"] == "info"


# --- faults of our own


class Broken:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"planted: {name}")


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


def _served_with(app: FastAPI, instruments: Instruments, **hooks: Any) -> httpx2.Response:
    chosen: dict[str, Any] = {"access_log": Lines(), **hooks}
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(),
        routed=app,
        hooks=Hooks(
            excluded=frozenset(), failed=instruments.failed, instruments=instruments, **chosen
        ),
    )
    return ask(app, "GET", "/items/7")


def _raising(*_: object) -> Any:
    raise RuntimeError("planted")


@pytest.mark.parametrize(
    ("hook", "component"),
    [
        ({"access_log": Broken()}, "logs"),
        ({"on_start": _raising}, "tracing"),
        ({"exemplar": _raising}, "metrics"),
    ],
)
def test_a_fault_in_a_hook_is_counted_and_the_request_served(
    app: FastAPI, instruments: Instruments, hook: dict[str, Any], component: str
) -> None:
    assert _served_with(app, instruments, **hook).json() == {"item": 7}
    assert value(instruments.registry, LIBRARY_ERRORS, component=component) == 1
    assert value(instruments.registry, LIBRARY_ERRORS) == 1


@pytest.mark.parametrize("part", ["_duration", "_size", "_active"])
def test_a_fault_in_an_instrument_is_counted_and_the_request_served(
    app: FastAPI, instruments: Instruments, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    middleware = RequestMiddleware(
        app.build_middleware_stack(),
        routed=app,
        hooks=Hooks(excluded=frozenset(), failed=instruments.failed, instruments=instruments),
    )
    monkeypatch.setattr(middleware, part, Broken())
    app.middleware_stack = middleware
    assert ask(app, "GET", "/items/7").json() == {"item": 7}
    assert value(instruments.registry, LIBRARY_ERRORS) >= 1


@pytest.mark.parametrize(
    "function", ["route_template", "_request_of", "_ending", "perf_counter", "outcome_of"]
)
def test_a_fault_in_each_step_is_counted_and_the_request_served(
    app: FastAPI, instruments: Instruments, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"taskscope.middleware.{function}", _raising)
    assert _served_with(app, instruments).json() == {"item": 7}
    assert value(instruments.registry, LIBRARY_ERRORS, component="middleware") >= 1
    assert value(instruments.registry, ACTIVE_REQUESTS) == 0


def test_an_app_whose_routes_cannot_be_read_is_served(
    app: FastAPI, instruments: Instruments
) -> None:
    app.add_route("/page", lambda _: PlainTextResponse("page"))
    middleware = RequestMiddleware(
        app.build_middleware_stack(),
        routed=Broken(),  # type: ignore[arg-type] # the fault that is planted
        hooks=Hooks(excluded=frozenset(), failed=instruments.failed, instruments=instruments),
    )
    app.middleware_stack = middleware
    assert ask(app, "GET", "/page").text == "page"
    assert value(instruments.registry, LIBRARY_ERRORS, component="middleware") >= 1


@pytest.mark.parametrize(
    ("status", "complete", "gone", "failure", "outcome"),
    [
        (200, True, False, None, "ok"),
        (302, True, False, None, "ok"),
        (404, True, False, None, "client_error"),
        (500, True, False, None, "server_error"),
        (504, True, False, None, "timeout"),
        (500, True, False, TimeoutError(), "timeout"),
        (500, True, False, ValueError(), "server_error"),
        (200, False, False, None, "server_error"),
        (200, False, True, None, "disconnected"),
        (500, False, True, ValueError(), "disconnected"),
        (200, True, True, None, "disconnected"),
        (499, False, False, asyncio.CancelledError(), "cancelled"),
        (499, False, True, asyncio.CancelledError(), "disconnected"),
    ],
)
def test_the_outcome_is_one_word(
    status: int, complete: bool, gone: bool, failure: BaseException | None, outcome: str
) -> None:
    assert outcome_of(status=status, complete=complete, gone=gone, failure=failure) == outcome
