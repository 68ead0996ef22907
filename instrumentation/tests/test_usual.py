"""What is answered in the usual way is seen as it is by the exchange that follows what is not.

The same messages, series and lines, whatever an application does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from taskscope import Settings, instrument
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.context import current_request
from taskscope.requests.middleware import RequestMiddleware
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import value

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

JSON = [(b"content-length", b"2"), (b"content-type", b"application/json")]
START: Message = {"type": "http.response.start", "status": 200, "headers": JSON}
BODY: Message = {"type": "http.response.body", "body": b"{}"}
TIMES = 3


def sending(*messages: Message) -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        del scope, receive
        for message in messages:
            await send(message)

    return app


async def once(scope: Any, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({**START, "headers": iter(JSON)})
    await send(BODY)


async def fails_after_its_start(scope: Any, receive: Receive, send: Send) -> None:
    del scope, receive
    await send(START)
    raise RuntimeError("planted")


async def fails_after_its_end(scope: Any, receive: Receive, send: Send) -> None:
    del scope, receive
    await send(START)
    await send(BODY)
    raise RuntimeError("planted")


async def fails_at_once(scope: Any, receive: Receive, send: Send) -> None:
    raise RuntimeError("planted")


async def waits_for_the_end(scope: Any, receive: Receive, send: Send) -> None:
    del scope
    await send(START)
    await send(BODY)
    while (await receive())["type"] != "http.disconnect":
        pass


async def is_told_first(scope: Any, receive: Receive, send: Send) -> None:
    del scope
    while (await receive())["type"] != "http.disconnect":
        pass
    await send(START)
    await send(BODY)


async def asks_who_it_serves(scope: Any, receive: Receive, send: Send) -> None:
    del receive
    request = current_request.get()
    assert request is not None
    assert request is current_request.get()
    assert request.path == scope["path"]
    await send({**START, "headers": [*JSON, (b"seen", request.request_id.encode())]})
    await send(BODY)


APPS: dict[str, App] = {
    "one message each": sending(START, BODY),
    "no headers": sending({"type": START["type"], "status": 204}, {"type": BODY["type"]}),
    "headers that are read once": once,
    "headers as a tuple": sending({**START, "headers": tuple(JSON)}, BODY),
    "trailers promised": sending({**START, "trailers": True}, BODY),
    "an id of its own": sending({**START, "headers": [*JSON, (b"x-request-id", b"own")]}, BODY),
    "an event stream": sending(
        {**START, "headers": [(b"content-type", b"text/event-stream")]},
        {**BODY, "body": b"data: 1\n\n", "more_body": True},
        BODY,
    ),
    "parts": sending(START, {**BODY, "more_body": True}, {**BODY, "more_body": True}, BODY),
    "more after the end": sending(START, BODY, BODY),
    "two starts": sending(START, START, BODY),
    "a body without a start": sending(BODY),
    "a large body": sending(START, {**BODY, "body": b"x" * 100_000}),
    "a file": sending(START, {"type": "http.response.pathsend", "path": "/nowhere"}),
    "something unknown": sending({"type": "http.response.debug"}, START, BODY),
    "a hint before": sending({"type": "http.response.early_hint", "links": []}, START, BODY),
    "an error status": sending({**START, "status": 503}, BODY),
    "a client's error": sending({**START, "status": 404}, BODY),
    "a status of no meaning": sending({**START, "status": 299}, BODY),
    "nothing": sending(),
    "a failure at once": fails_at_once,
    "a failure after the start": fails_after_its_start,
    "a failure after the end": fails_after_its_end,
    "the end waited for": waits_for_the_end,
    "a client that left before": is_told_first,
    "who it serves": asks_who_it_serves,
}


class Server:
    """A server's own object, as of uvicorn, which knows whether the client has left."""

    def __init__(self, sent: list[Message]) -> None:
        self.disconnected = False
        self._sent = sent
        self._messages: Iterator[Message] = iter(
            [{"type": "http.request", "body": b"", "more_body": False}]
        )

    async def receive(self) -> Message:
        message = next(self._messages, None)
        if message is None:
            self.disconnected = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if "headers" in message:
            message = {**message, "headers": list(message["headers"])}
        self._sent.append(message)


def observed(app: App, folder: Path, *, method: str, told: bool, usual: bool) -> dict[str, Any]:
    """What the client, the series and the lines say of a few requests, without ids, times and the clock's values.

    told: the server's object is one that tells whether the client has left. usual: as it comes; else each request is
    followed by an exchange from its start.
    """
    service = Starlette(routes=[Route("/things/{number}", endpoint=_endpoint(app))])
    telemetry = instrument(
        service, service_name="usual", service_version="1", settings=Settings(spool=folder)
    )
    layer = service.build_middleware_stack()
    assert isinstance(layer, RequestMiddleware)
    if not usual:
        layer.layer.take = [].pop
    sent: list[Message] = []
    failures = [
        type(failure).__name__ for _ in range(TIMES) if (failure := _ask(layer, sent, method, told))
    ]
    found = {
        "failures": failures,
        "sent": [_without_id(message) for message in sent],
        "series": _counts(telemetry.metrics().decode()),
        "errors": value(telemetry.registry, LIBRARY_ERRORS),
        "active": value(telemetry.registry, ACTIVE_REQUESTS),
        "requests": value(telemetry.registry, REQUEST_DURATION),
    }
    telemetry.close()
    found["lines"] = [_plain(line) for line in read_lines(folder) if "http.route" in line]
    return found


def _endpoint(app: App) -> Any:
    class Endpoint:
        def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
            self._called = app(scope, receive, send)

        def __await__(self) -> Any:
            return self._called.__await__()

    return Endpoint


def _ask(
    layer: RequestMiddleware, sent: list[Message], method: str, told: bool
) -> Exception | None:
    server = Server(sent)
    scope = {
        "type": "http",
        "method": method,
        "path": "/things/7",
        "raw_path": b"/things/7",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 4000),
    }

    async def receive() -> Message:
        return await server.receive()

    async def run() -> None:
        await layer(scope, server.receive if told else receive, server.send)

    try:
        asyncio.run(run())
    except Exception as error:  # noqa: BLE001 - a failure is what is compared
        return error
    return None


def _without_id(message: Message) -> Message:
    headers = message.get("headers")
    if headers is None:
        return message
    kept = [(k, v if k not in (b"x-request-id", b"seen") else len(v)) for k, v in headers]
    return {**message, "headers": kept}


def _counts(exposition: str) -> dict[str, float]:
    """Each series that counts requests, and the bytes they sent."""
    names = ("http_server_request_duration_seconds_count", "http_server_response_body_size_bytes_")
    rows = [line.rsplit(" ", 1) for line in exposition.splitlines() if not line.startswith("#")]
    return {
        name: float(number)
        for name, number in rows
        if name.startswith(names) or "streams" in name or "first_byte_seconds_count" in name
    }


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    differing = ("@timestamp", "http.request.id", "event.duration", "trace.id", "span.id")
    kept = {key: found for key, found in line.items() if key not in differing}
    return json.loads(json.dumps(kept, sort_keys=True)) | {"keys": sorted(line)}


@pytest.mark.parametrize(
    ("method", "told"), [("GET", True), ("HEAD", False)], ids=["uvicorn's", "another's"]
)
@pytest.mark.parametrize("name", APPS)
def test_both_ways_see_the_same(tmp_path: Path, name: str, method: str, told: bool) -> None:
    usual = observed(APPS[name], tmp_path / "usual", method=method, told=told, usual=True)
    followed = observed(APPS[name], tmp_path / "followed", method=method, told=told, usual=False)
    assert usual == followed
    assert (usual["requests"], usual["active"], usual["errors"]) == (TIMES, 0, 0)


def test_a_constant_message_keeps_no_id(tmp_path: Path) -> None:
    observed(APPS["one message each"], tmp_path, method="GET", told=True, usual=True)
    assert START["headers"] is JSON
    assert len(JSON) == 2


def test_an_abandoned_application_may_be_closed_anywhere(tmp_path: Path) -> None:
    """Python closes what nobody awaits any more where it collects it: that is in another context, and no error."""

    async def forever(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    service = Starlette(routes=[Route("/things/{number}", endpoint=_endpoint(forever))])
    telemetry = instrument(
        service, service_name="usual", service_version="1", settings=Settings(spool=tmp_path)
    )
    server = Server([])

    async def abandon() -> Any:
        scope = {"type": "http", "method": "GET", "path": "/things/7", "headers": []}
        called = service.build_middleware_stack()(scope, server.receive, server.send)
        called.send(None)  # type: ignore[attr-defined] # it is a coroutine
        return called

    called = asyncio.run(abandon())
    called.close()
    assert value(telemetry.registry, ACTIVE_REQUESTS) == 0
    assert value(telemetry.registry, REQUEST_DURATION) == 1
    telemetry.close()
