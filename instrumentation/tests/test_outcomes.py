"""The outcome of a request over real sockets, under both of uvicorn's parsers: one word, once in every series."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request
from prometheus_client.registry import CollectorRegistry
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from taskscope import Settings, instrument
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.requests.outcome import outcome_of
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until

Http = Literal["h11", "httptools"]


class Service:
    """An application with every way to end badly, and what it says meanwhile."""

    def __init__(self) -> None:
        self.app = app = FastAPI()
        self.entered = False
        self.release = False
        app.add_api_route("/ok", self.ok, methods=["GET", "HEAD"])
        app.add_api_route("/waits", self.waits)
        app.add_api_route("/endless", self.endless)
        app.add_api_route("/upload", self.upload, methods=["POST"])
        app.add_api_route("/boom", self.boom)
        app.add_api_route("/half", self.half)
        app.add_api_route("/late", self.late)
        app.add_api_route("/cancelled", self.cancelled)
        app.add_api_route("/short", self.short)
        app.add_exception_handler(TimeoutError, _gateway)

    async def ok(self) -> PlainTextResponse:
        return PlainTextResponse("x" * 100)

    async def waits(self) -> str:
        self.entered = True
        while not self.release:  # noqa: ASYNC110 - it is set from the test's thread
            await asyncio.sleep(0.005)
        return "nobody reads this"

    async def endless(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1024
                await asyncio.sleep(0.005)

        return StreamingResponse(parts())

    async def upload(self, request: Request) -> int:
        return len(await request.body())

    async def boom(self) -> None:
        raise RuntimeError("broken")

    async def half(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("broken in the middle")

        return StreamingResponse(parts())

    async def late(self) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async def cancelled(self) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    async def short(self) -> Response:
        return Response(b"less", headers={"content-length": "400"})


async def _gateway(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"late": True}, status_code=504)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(params=["bare", "behind BaseHTTPMiddleware"])
def registry(service: Service, request: pytest.FixtureRequest) -> CollectorRegistry:
    if request.param != "bare":
        service.app.add_middleware(
            BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request)
        )
    return instrument(
        service.app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(),
    ).registry


@pytest.fixture(params=["h11", "httptools"])
def url(
    service: Service, registry: CollectorRegistry, request: pytest.FixtureRequest
) -> Iterator[str]:
    with serving(service.app, http=request.param) as url:
        yield url


def connect(url: str, text: str) -> socket.socket:
    address = urlsplit(url)
    client = socket.create_connection((address.hostname or "", address.port or 80))
    client.settimeout(5)
    client.sendall(text.encode())
    return client


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"


def hung_up(url: str, text: str, *, reads: bool) -> None:
    with closing(connect(url, text)) as client:
        if reads:
            client.recv(1024)


def answered(url: str, path: str) -> None:
    """The whole answer was read, however it ended."""
    text = get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    with closing(connect(url, text)) as client:
        while client.recv(4096):
            pass


def settled(registry: CollectorRegistry, number: int = 1) -> None:
    until(lambda: value(registry, REQUEST_DURATION) == number, saying="the request is counted")


def counted_once(registry: CollectorRegistry, route: str, status: str, outcome: str) -> bool:
    """Exactly one request is there, under these labels, in each of the series."""
    labels: dict[str, Any] = {
        "http_route": route,
        "http_response_status_code": status,
        "outcome": outcome,
    }
    return (
        value(registry, REQUEST_DURATION),
        value(registry, REQUEST_DURATION, **labels),
        value(registry, TIME_TO_FIRST_BYTE, http_route=route),
        value(registry, RESPONSE_SIZE, http_route=route),
        value(registry, ACTIVE_REQUESTS),
    ) == (1, 1, 1, 1, 0)


def test_a_client_that_hangs_up_while_the_handler_waits_is_no_error(
    service: Service, registry: CollectorRegistry, url: str
) -> None:
    client = connect(url, get("/waits"))
    until(lambda: service.entered)
    client.close()
    # The server has to see the hang-up before the handler answers; a request of another client comes after it.
    with httpx2.Client(base_url=url) as other:
        other.get("/ok")
    service.release = True
    settled(registry, 2)
    assert value(registry, REQUEST_DURATION, http_route="/waits", outcome="disconnected") == 1
    assert value(registry, REQUEST_DURATION, http_response_status_code="499") == 1


def test_a_client_that_leaves_a_stream_is_no_error(registry: CollectorRegistry, url: str) -> None:
    hung_up(url, get("/endless"), reads=True)
    settled(registry)
    assert counted_once(registry, "/endless", "200", "disconnected")


def test_a_client_that_leaves_while_uploading_is_no_error(
    registry: CollectorRegistry, url: str
) -> None:
    text = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"
    hung_up(url, text, reads=False)
    settled(registry)
    assert counted_once(registry, "/upload", "499", "disconnected")


def test_a_client_that_stays_connected_after_its_answer_has_not_left(
    registry: CollectorRegistry, url: str
) -> None:
    with httpx2.Client(base_url=url) as client:
        for _ in range(3):
            client.get("/ok")
    settled(registry, 3)
    assert value(registry, REQUEST_DURATION, outcome="ok") == 3


def test_a_head_request_is_ok_and_has_no_bytes(registry: CollectorRegistry, url: str) -> None:
    with httpx2.Client(base_url=url) as client:
        client.head("/ok")
    settled(registry)
    assert counted_once(registry, "/ok", "200", "ok")
    assert value(registry, RESPONSE_SIZE, part="sum") == 0


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/boom", "500", "server_error"),
        ("/half", "200", "server_error"),
        ("/late", "504", "timeout"),
        ("/short", "200", "server_error"),
        ("/upload", "405", "client_error"),
    ],
)
def test_what_goes_wrong_inside_has_its_own_word(
    registry: CollectorRegistry, url: str, path: str, status: str, outcome: str
) -> None:
    answered(url, path)
    settled(registry)
    assert counted_once(registry, path, status, outcome)


def test_a_handler_that_is_cancelled_is_no_server_error(
    service: Service, registry: CollectorRegistry, url: str
) -> None:
    answered(url, "/cancelled")
    settled(registry)
    # BaseHTTPMiddleware makes an error of its own of it: `No response returned.`
    behind = bool(service.app.user_middleware)
    status, outcome = ("500", "server_error") if behind else ("499", "cancelled")
    assert counted_once(registry, "/cancelled", status, outcome)


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
        (200, True, False, ValueError(), "server_error"),
        (404, True, False, asyncio.CancelledError(), "client_error"),
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
