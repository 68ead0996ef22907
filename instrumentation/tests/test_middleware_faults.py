"""Whatever breaks in the outermost layer is counted, and the request is served and measured all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from taskscope.catalogue.builtin import ACTIVE_REQUESTS, LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.metrics.instruments import Instruments
from taskscope.requests.exchange import Exchange
from taskscope.requests.ids import RequestIds
from taskscope.requests.layer import Layer
from taskscope.requests.middleware import Hooks, RequestMiddleware
from taskscope.requests.series import RequestSeries
from taskscope.routing.route import RouteFinder
from taskscope.testing.metrics import isolated, value


class Lines:
    """An access log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[RequestContext, Ended]] = []

    def write(self, request: RequestContext, ended: Ended) -> None:
        self.told.append((request, ended))

    def text_of(self, *_: object) -> bytes:
        return b""

    def served(self, *_: object) -> bool:
        return False


class Broken:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"planted: {name}")


class BrokenLines(Lines):
    """As an access log whose disk, encoder and all else are broken."""

    def write(self, *_: object) -> None:
        raise RuntimeError("planted")


def _raising(*_: object, **__: object) -> Any:
    raise RuntimeError("planted")


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    return app


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


def ask(app: Any, path: str) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(request())


def served_with(
    app: FastAPI, instruments: Instruments, path: str = "/items/7", **hooks: Any
) -> httpx2.Response:
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(),
        routed=app,
        hooks=Hooks(
            excluded=frozenset(), failed=instruments.failed, instruments=instruments, **hooks
        ),
    )
    return ask(app, path)


def errors(instruments: Instruments, component: str) -> float:
    return value(instruments.registry, LIBRARY_ERRORS, component=component)


@pytest.mark.parametrize(
    ("hook", "component"),
    [
        ({"access_log": BrokenLines()}, "logs"),
        ({"on_end": _raising}, "tracing"),
    ],
)
def test_a_fault_in_a_hook_is_counted_and_the_request_served(
    app: FastAPI, instruments: Instruments, hook: dict[str, Any], component: str
) -> None:
    assert served_with(app, instruments, **hook).json() == {"item": 7}
    assert errors(instruments, component) == value(instruments.registry, LIBRARY_ERRORS) == 1
    assert value(instruments.registry, REQUEST_DURATION, outcome="ok") == 1


def test_a_fault_in_the_exemplar_is_counted_and_the_request_measured(
    app: FastAPI, instruments: Instruments
) -> None:
    def sample(_: object, request: RequestContext, __: object) -> None:
        request.sampled = True

    served_with(app, instruments, on_end=sample, exemplar=_raising)
    assert errors(instruments, "metrics") == 1
    assert value(instruments.registry, REQUEST_DURATION, outcome="ok") == 1


def test_a_fault_where_a_response_starts_is_counted_and_the_request_served(
    app: FastAPI, instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.get("/text", response_class=PlainTextResponse)
    async def text() -> str:
        return "text"

    monkeypatch.setattr(Exchange, "_open_thoroughly", _raising)
    assert served_with(app, instruments, path="/text").text == "text"
    assert errors(instruments, "middleware") == 1
    assert value(instruments.registry, REQUEST_DURATION) == 1
    assert value(instruments.registry, ACTIVE_REQUESTS) == 0


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (RequestIds, "cut"),
        (RequestSeries, "closed"),
        (RouteFinder, "find"),
        (Exchange, "__init__"),
    ],
)
def test_a_fault_in_each_step_is_counted_and_the_request_served(
    app: FastAPI,
    instruments: Instruments,
    owner: type,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, step, _raising)
    assert served_with(app, instruments).json() == {"item": 7}
    assert value(instruments.registry, LIBRARY_ERRORS) >= 1
    assert value(instruments.registry, ACTIVE_REQUESTS) == 0


@pytest.mark.parametrize("function", ["outcome_of", "client_left"])
def test_a_fault_in_the_judgement_is_counted_and_the_request_measured(
    app: FastAPI, instruments: Instruments, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"taskscope.requests.exchange.{function}", _raising)
    assert served_with(app, instruments, "/boom").status_code == 500
    assert errors(instruments, "middleware") == 1
    assert value(instruments.registry, REQUEST_DURATION, outcome="server_error") == 1
    assert value(instruments.registry, ACTIVE_REQUESTS) == 0


def test_an_app_whose_routes_cannot_be_read_is_served(
    app: FastAPI, instruments: Instruments
) -> None:
    app.add_route("/page", lambda _: PlainTextResponse("page"))
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(),
        routed=Broken(),  # type: ignore[arg-type] # the fault that is planted
        hooks=Hooks(excluded=frozenset(), failed=instruments.failed, instruments=instruments),
    )
    assert ask(app, "/page").text == "page"
    assert value(instruments.registry, LIBRARY_ERRORS) >= 1


def test_the_line_and_the_span_are_told_once_how_a_request_ended(
    app: FastAPI, instruments: Instruments
) -> None:
    lines, ends = Lines(), Lines()
    served_with(
        app,
        instruments,
        "/boom",
        access_log=lines,
        on_end=lambda _, request, ended: ends.write(request, ended),
    )
    (request, ended), (_, same) = *lines.told, *ends.told
    assert ended is same
    assert (request.route, ended.status, ended.outcome) == ("/boom", 500, "server_error")
    assert isinstance(ended.failure, RuntimeError)
    assert 0 < ended.seconds < 5


def test_without_metrics_nothing_is_counted_and_the_line_is_written(app: FastAPI) -> None:
    lines = Lines()
    hooks = Hooks(excluded=frozenset(), failed=_raising, access_log=lines)
    assert Layer(app, hooks).series is None
    app.middleware_stack = RequestMiddleware(app.build_middleware_stack(), routed=app, hooks=hooks)
    ask(app, "/items/7")
    assert [(r.route, e.body_bytes) for r, e in lines.told] == [("/items/{item_id}", 10)]


def test_a_line_that_cannot_be_written_at_less_cost_is_counted_and_the_request_measured(
    app: FastAPI, instruments: Instruments
) -> None:
    class Quick(Lines):
        def text_of(self, *_: object) -> bytes:
            return b"known"

        def served(self, *_: object) -> bool:
            raise RuntimeError("planted")

    assert served_with(app, instruments, access_log=Quick()).json() == {"item": 7}
    assert ask(app, "/items/7").json() == {"item": 7}
    assert errors(instruments, "logs") == value(instruments.registry, LIBRARY_ERRORS) == 1
    assert value(instruments.registry, REQUEST_DURATION, outcome="ok") == 2
