"""WebSocket connections over real sockets and event streams: how many, what goes over them, how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.registry import CollectorRegistry
from starlette.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from taskscope import Catalogue, Settings, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, REQUEST_DURATION, RESPONSE_SIZE
from taskscope.catalogue.groups import (
    CLOSE_CLASSES,
    STREAM_BYTES,
    STREAM_DURATION,
    STREAM_MESSAGES,
    STREAM_OPEN,
    STREAMS,
)
from taskscope.requests.events import EventCounter
from taskscope.requests.streams import close_class
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until


async def echo(socket: WebSocket, room: str = "") -> None:
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text == "leave":
                await socket.close(4001)
                return
            if text == "break":
                raise RuntimeError("broken")
            if text is not None:
                await socket.send_text(text)
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text("again")
        await asyncio.sleep(0.005)


async def refuse(socket: WebSocket) -> None:
    await socket.close(1008)


def service() -> FastAPI:
    app = FastAPI()
    app.add_api_websocket_route("/echo", echo)
    app.add_api_websocket_route("/talk", talk)
    app.add_api_websocket_route("/refuse", refuse)
    rooms = APIRouter(prefix="/rooms")
    rooms.add_api_websocket_route("/{room}", echo)
    app.include_router(rooms)
    below = FastAPI()
    below.add_api_websocket_route("/deep/{room}", echo)
    app.mount("/tenants/{tenant}", below)

    @app.get("/events")
    async def events(number: int = 3) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for each in range(number):
                yield f"data: {each}\n\n".encode()
                await asyncio.sleep(0.02)
            yield b": still here\n\n"

        return StreamingResponse(parts(), media_type="text/event-stream")

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            raise RuntimeError("broken")

        return StreamingResponse(parts(), media_type="text/event-stream")

    return app


def measured(app: FastAPI, *, declared: bool = True) -> CollectorRegistry:
    return instrument(
        app,
        service_name="test",
        service_version="1",
        catalogue=Catalogue(service="test", metrics=STREAMS if declared else ()),
        logs=False,
        tracing=False,
        settings=Settings(),
    ).registry


@pytest.fixture
def app() -> FastAPI:
    return service()


@pytest.fixture
def registry(app: FastAPI) -> CollectorRegistry:
    return measured(app)


@pytest.fixture(params=["h11", "httptools"])
def url(app: FastAPI, registry: CollectorRegistry, request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(app, http=request.param) as url:
        yield url


def to(url: str, path: str) -> Any:
    return connect(url.replace("http", "ws", 1) + path, close_timeout=2)


def ended(registry: CollectorRegistry, close: str, **labels: str) -> None:
    until(lambda: value(registry, STREAM_DURATION) == 1, saying="the stream has ended")
    assert value(registry, STREAM_DURATION, close=close, **labels) == 1
    assert value(registry, STREAM_OPEN) == 0


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/echo", "/echo"),
        ("/rooms/blue", "/rooms/{room}"),
        ("/tenants/acme/deep/blue", "/tenants/{tenant}/deep/{room}"),
    ],
)
def test_messages_and_bytes_each_way_are_counted_under_the_template(
    registry: CollectorRegistry, url: str, path: str, route: str
) -> None:
    with to(url, path) as socket:
        socket.send("ü")
        socket.recv()
        socket.send(b"12345")
        socket.recv()
        assert value(registry, STREAM_OPEN, http_route=route, protocol="websocket") == 1
    ended(registry, "normal", http_route=route, protocol="websocket")
    for direction in ("received", "sent"):
        labels = {"http_route": route, "direction": direction}
        assert value(registry, STREAM_MESSAGES, **labels) == 2
        assert value(registry, STREAM_BYTES, **labels) == 7
    assert value(registry, REQUEST_DURATION) == 0


def test_a_client_without_a_close_frame_is_abnormal(registry: CollectorRegistry, url: str) -> None:
    socket = to(url, "/echo")
    socket.socket.close()
    ended(registry, "abnormal")


def test_a_client_that_closes_without_a_code_closes_as_browsers_do(
    registry: CollectorRegistry, url: str
) -> None:
    with to(url, "/echo") as socket:
        socket.protocol.send_close()
        for data in socket.protocol.data_to_send():
            socket.socket.sendall(data)
        ended(registry, "normal")


def test_a_client_that_goes_while_it_is_talked_to_closes_with_its_own_code(
    registry: CollectorRegistry, url: str
) -> None:
    with to(url, "/talk") as socket:
        socket.recv()
        socket.close(1001)
    until(lambda: value(registry, STREAM_DURATION) == 1)
    closes = [c for c in CLOSE_CLASSES if value(registry, STREAM_DURATION, close=c)]
    assert closes in (["going_away"], ["abnormal"])  # as far as the server tells it
    assert value(registry, STREAM_OPEN) == 0


def test_the_servers_own_code_is_its_class(registry: CollectorRegistry, url: str) -> None:
    with to(url, "/echo") as socket:
        socket.send("leave")
        with pytest.raises(ConnectionClosed):
            socket.recv()
    ended(registry, "application")


def test_an_exception_is_a_server_error(registry: CollectorRegistry, url: str) -> None:
    with to(url, "/echo") as socket:
        socket.send("break")
        with pytest.raises(ConnectionClosed):
            socket.recv()
    ended(registry, "server_error")


@pytest.mark.parametrize(("path", "route"), [("/refuse", "/refuse"), ("/nothing", "unmatched")])
def test_what_was_refused_never_was_open(
    registry: CollectorRegistry, url: str, path: str, route: str
) -> None:
    with pytest.raises(InvalidStatus):
        to(url, path)
    ended(registry, "refused", http_route=route)
    assert value(registry, STREAM_MESSAGES) == 0


def test_an_event_stream_counts_its_events_and_is_one_request(
    registry: CollectorRegistry, url: str
) -> None:
    with httpx2.Client(base_url=url) as client:
        size = len(client.get("/events?number=3").content)
    ended(registry, "normal", http_route="/events", protocol="sse")
    assert value(registry, STREAM_MESSAGES, direction="sent") == 3
    assert value(registry, STREAM_BYTES, direction="sent") == size
    assert value(registry, RESPONSE_SIZE, part="sum") == size
    assert value(registry, REQUEST_DURATION, outcome="ok") == 1


def test_how_long_an_event_stream_lives_is_not_its_requests_duration(
    registry: CollectorRegistry, url: str
) -> None:
    with httpx2.Client(base_url=url) as client:
        client.get("/events?number=10")
    until(lambda: value(registry, STREAM_DURATION) == 1)
    assert value(registry, STREAM_DURATION, part="sum") >= 0.2
    assert value(registry, REQUEST_DURATION, part="sum") < 0.15


def test_a_client_that_leaves_an_event_stream_goes_away(
    registry: CollectorRegistry, url: str
) -> None:
    with (
        httpx2.Client(base_url=url) as client,
        client.stream("GET", "/events?number=500") as answer,
    ):
        next(answer.iter_raw())
    ended(registry, "going_away", protocol="sse")
    assert value(registry, REQUEST_DURATION, outcome="disconnected") == 1


def test_an_event_stream_that_breaks_is_a_server_error(
    registry: CollectorRegistry, url: str
) -> None:
    with httpx2.Client(base_url=url) as client, pytest.raises(httpx2.RemoteProtocolError):
        client.get("/breaks")
    ended(registry, "server_error", protocol="sse")


def test_where_the_group_is_not_declared_streams_pass_untouched(app: FastAPI) -> None:
    registry = measured(app, declared=False)
    with serving(app) as url:
        with to(url, "/echo") as socket:
            socket.send("hello")
            assert socket.recv() == "hello"
        with httpx2.Client(base_url=url) as client:
            client.get("/events?number=10")
    assert value(registry, REQUEST_DURATION, part="sum", http_route="/events") >= 0.2


def test_a_fault_of_ours_closes_no_connection(
    app: FastAPI, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    for step in ("open", "lived"):
        monkeypatch.setattr(f"taskscope.requests.streams.StreamSeries.{step}", planted)
    with serving(app) as url, to(url, "/echo") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
    until(lambda: value(registry, LIBRARY_ERRORS) >= 2)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (1000, "normal"),
        (1005, "normal"),
        (1001, "going_away"),
        (1002, "protocol_error"),
        (1009, "protocol_error"),
        (1008, "policy"),
        (1011, "server_error"),
        (1012, "server_error"),
        (1006, "abnormal"),
        (3000, "application"),
        (4999, "application"),
        (5000, "abnormal"),
        (77, "abnormal"),
    ],
)
def test_a_close_code_has_its_class(code: int, word: str) -> None:
    assert close_class(code) == word
    assert word in CLOSE_CLASSES


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", 2),
        (b"data: 1\r\n\r\ndata: 2\r\r", 2),
        (b": keep alive\n\n", 0),
        (b"id: 7\n\n", 0),
        (b"event: x\ndata\n\n", 1),
        (b"data: unfinished\n", 0),
        (b"\n\n\n\n", 0),
        (b"database: no\n\n", 0),
    ],
)
def test_an_event_is_what_a_blank_line_ends_and_has_data(text: bytes, events: int) -> None:
    assert EventCounter().feed(text) == events


@given(
    st.lists(
        st.sampled_from([b"data: 1\n\n", b"data: 2\r\n\r\n", b": c\n\n", b"data: a\rdata: b\r\r"])
    ),
    st.lists(st.integers(0, 60)),
)
def test_events_are_the_same_however_the_stream_is_cut(
    pieces: list[bytes], cuts: list[int]
) -> None:
    text = b"".join(pieces)
    places = sorted({cut for cut in cuts if cut < len(text)})
    counter, begun = EventCounter(), 0
    counted = 0
    for place in (*places, len(text)):
        counted += counter.feed(text[begun:place])
        begun = place
    assert counted == EventCounter().feed(text) == sum(piece[:1] == b"d" for piece in pieces)
