"""The law of the request series: whatever is asked in whatever order, each request is in each of them exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.registry import CollectorRegistry
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

from taskscope import Catalogue, Settings, instrument
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    BACKGROUND_DURATION,
    LIBRARY_ERRORS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.catalogue.groups import STREAM_DURATION, STREAM_OPEN, STREAMS
from taskscope.testing.metrics import value

ROUTES = frozenset(
    {
        "unmatched",
        "/items/{item_id}",
        "/nested/v1/{x}",
        "/tenants/{tenant}/things/{thing}",
        "/tenants/{tenant}/{path}",
        "/boom",
        "/stream",
        "/breaks",
        "/events",
        "/waits",
        "/afterwards",
    }
)


async def _after() -> None:
    raise RuntimeError("broken afterwards")


async def _parts(*, broken: bool) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"data: x\n\n"
    if broken:
        raise RuntimeError("broken in the middle")


def _service() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    @app.get("/waits")
    async def waits() -> None:
        await asyncio.Event().wait()

    @app.get("/afterwards")
    async def afterwards() -> PlainTextResponse:
        return PlainTextResponse("sent", background=BackgroundTask(_after))

    app.add_api_route("/stream", lambda: StreamingResponse(_parts(broken=False)))
    app.add_api_route("/breaks", lambda: StreamingResponse(_parts(broken=True)))
    app.add_api_route(
        "/events",
        lambda: StreamingResponse(_parts(broken=False), media_type="text/event-stream"),
    )
    inner = APIRouter(prefix="/v1")
    inner.add_api_route("/{x}", item, name="inner")
    outer = APIRouter(prefix="/nested")
    outer.include_router(inner)
    app.include_router(outer)
    below = FastAPI()
    below.add_api_route("/things/{thing}", lambda thing: thing)
    app.mount("/tenants/{tenant}", below)
    return app


class Asked(NamedTuple):
    """What a client does: asks, and leaves or is cancelled after so many turns of the loop, or stays."""

    method: str
    path: str
    leaves_after: int | None
    cancelled: bool


_word = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#"), min_size=1
)
_paths = st.one_of(
    st.sampled_from(["/boom", "/stream", "/breaks", "/events", "/afterwards", "/items/7/", "/"]),
    st.builds("/items/{}".format, st.integers() | _word),
    st.builds("/nested/v1/{}".format, _word),
    st.builds("/tenants/{}/things/{}".format, _word, _word),
    st.builds("/tenants/{}/{}".format, _word, _word),
    st.builds("/{}".format, _word),
)
_methods = st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "BREW", "get", ""])
_ended = st.tuples(st.none() | st.integers(0, 4), st.booleans())
_asked = st.one_of(
    st.builds(lambda m, p, e: Asked(m, p, *e), _methods, _paths, _ended),
    # what waits for ever has to be ended by somebody
    st.builds(lambda n: Asked("GET", "/waits", n, True), st.integers(0, 4)),
)


async def _ask(app: FastAPI, asked: Asked) -> bool:
    """Whether the application was reached: a task that is cancelled before its first turn never is."""
    turns, reached = 0, False

    async def serve() -> None:
        nonlocal reached
        reached = True
        await app(scope, receive, send)

    async def receive() -> dict[str, Any]:
        nonlocal turns
        turns += 1
        if turns == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        if asked.leaves_after is None:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": asked.method,
        "path": asked.path,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
    }
    task = asyncio.ensure_future(serve())
    if asked.cancelled and asked.leaves_after is not None:
        for _ in range(asked.leaves_after):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return reached


async def _all(app: FastAPI, requests: list[Asked], at_once: bool) -> int:
    """How many requests reached the application."""
    if at_once:
        return sum(await asyncio.gather(*(_ask(app, asked) for asked in requests)))
    return sum([await _ask(app, asked) for asked in requests])


def _counts(registry: CollectorRegistry, metric: Any) -> Counter[tuple[str, str]]:
    name = f"{metric.family}_count"
    counted: Counter[tuple[str, str]] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == name:
                labels = sample.labels
                counted[labels["http_request_method"], labels["http_route"]] += int(sample.value)
    return +counted


def _undeclared(registry: CollectorRegistry) -> set[tuple[str, str]]:
    return {
        (label.prometheus, sample.labels[label.prometheus])
        for family in registry.collect()
        for sample in family.samples
        for metric in (REQUEST_DURATION, TIME_TO_FIRST_BYTE, RESPONSE_SIZE)
        if sample.name.startswith(metric.family)
        for label in metric.labels
        if label.values and sample.labels[label.prometheus] not in label.values
    }


@settings(
    derandomize=True, max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(_asked, max_size=15), st.booleans())
def test_each_request_is_in_each_series_exactly_once(requests: list[Asked], at_once: bool) -> None:
    app = _service()
    registry = instrument(
        app,
        service_name="test",
        service_version="1",
        catalogue=Catalogue(service="test", metrics=STREAMS),
        logs=False,
        tracing=False,
        settings=Settings(),
    ).registry
    reached = asyncio.run(_all(app, requests, at_once))
    durations = _counts(registry, REQUEST_DURATION)
    assert value(registry, REQUEST_DURATION) == reached
    assert durations == _counts(registry, TIME_TO_FIRST_BYTE) == _counts(registry, RESPONSE_SIZE)
    assert {route for _, route in durations} <= ROUTES
    assert _undeclared(registry) == set()
    first, whole = (
        value(registry, metric, part="sum") for metric in (TIME_TO_FIRST_BYTE, REQUEST_DURATION)
    )
    assert 0 <= first <= whole + 1e-9
    assert value(registry, ACTIVE_REQUESTS) == value(registry, STREAM_OPEN) == 0
    streamed = value(registry, STREAM_DURATION, protocol="sse")
    events = value(
        registry, REQUEST_DURATION, http_route="/events", http_response_status_code="200"
    )
    assert events <= streamed <= value(registry, REQUEST_DURATION, http_route="/events")
    sent = value(registry, REQUEST_DURATION, http_route="/afterwards", outcome="ok")
    assert value(registry, BACKGROUND_DURATION) >= sent
    assert value(registry, LIBRARY_ERRORS) == 0
