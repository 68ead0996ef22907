"""The id of a request and what else its context says: its own, the caller's only if well formed, over with it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import MISSING, fields
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from taskscope import Settings, instrument
from taskscope.context import RequestContext, current_request
from taskscope.requests.fields import MAKERS
from taskscope.requests.ids import RequestIds
from taskscope.requests.middleware import Hooks, RequestMiddleware
from taskscope.testing.metrics import isolated


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @app.get("/context")
    async def context() -> dict[str, str | None]:
        request = current_request.get()
        assert request is not None
        return {"id": request.request_id, "client": request.client_request_id}

    @app.get("/own-id")
    async def own_id() -> Response:
        return Response(headers={"x-request-id": "mine"})

    return app


def measured(app: FastAPI) -> None:
    instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(),
    )


def ask(app: Any, method: str, path: str, **options: Any) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())


def test_the_same_message_sent_twice_stays_as_the_application_made_it() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    instruments = isolated()
    middleware = RequestMiddleware(
        plain,
        routed=FastAPI(),
        hooks=Hooks(excluded=frozenset(), failed=instruments.failed, instruments=instruments),
    )
    ids = [ask(middleware, "GET", "/").headers["x-request-id"] for _ in range(2)]
    assert start["headers"] == [(b"a", b"b")]
    assert ids[0] != ids[1]


def test_an_exchange_has_every_field_of_a_request() -> None:
    """A field that has no default is made when it is read: one that is added to the class needs a maker too."""
    made = {field.name for field in fields(RequestContext) if field.default is MISSING}
    assert made <= set(MAKERS) <= {field.name for field in fields(RequestContext)}


def test_a_field_that_was_set_stays_set_and_others_are_made(app: FastAPI) -> None:
    measured(app)
    seen: list[RequestContext] = []

    @app.get("/see")
    async def see() -> None:
        request = current_request.get()
        assert request is not None
        request.user = "hash"
        seen.append(request)

    ask(app, "GET", "/see")
    request = seen[0]
    assert (request.user, request.trace_id, request.method, request.path) == (
        "hash",
        None,
        "GET",
        "/see",
    )
    assert request.known_route() == "/see"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_ids_of_a_forked_process_are_its_own() -> None:
    request_ids = RequestIds()
    request_ids.take()
    ready, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"".join(request_ids.take() for _ in range(8)))
        os._exit(0)
    mine = {request_ids.take() for _ in range(8)}
    os.waitpid(child, 0)
    text = os.read(ready, 256)
    os.close(ready)
    os.close(write)
    theirs = {text[at : at + 32] for at in range(0, len(text), 32)}
    assert len(theirs) == len(mine) == 8
    assert not theirs & mine


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
