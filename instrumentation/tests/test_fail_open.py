"""A fault in any hook of the library is counted, never felt: the answer is the same and the rest goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import pkgutil
import random
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import BackgroundTasks, FastAPI, Response
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import SpanProcessor
from sqlalchemy import create_engine, text

from taskscope import (
    Catalogue,
    Kind,
    Metric,
    Settings,
    Telemetry,
    get_logger,
    in_context,
    instrument,
    set_user,
    timed,
)
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.catalogue.groups import GROUPS
from taskscope.testing.logs import Line, read_lines
from taskscope.testing.metrics import value

STORM_REQUESTS = int(os.environ.get("STORM_REQUESTS", "2000"))

STOCK = Metric(
    name="shop.stock.time", kind=Kind.HISTOGRAM, unit="s", help="Time to count.", owner="shop"
)


class PlantedError(Exception):
    """What was planted; nothing of the library raises it."""


def fail(*_args: object, **_named: object) -> Any:
    raise PlantedError("planted")


class Answer(NamedTuple):
    """What a client sees, without the request's own id."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def service() -> FastAPI:
    app = FastAPI()
    said = logging.getLogger("shop")

    @app.get("/pay/{order}")
    async def pay(order: str) -> dict[str, str]:
        set_user("ada")
        get_logger("shop").info("paid", order=order)
        said.info("paid %s", order)
        await asyncio.to_thread(in_context(said.info), "in a thread")
        return {"order": order}

    @app.get("/missing/{order}")
    def missing(order: str) -> Response:
        return Response("gone", status_code=404)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the service's own")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b", b"c"]))

    @app.get("/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream")

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(said.info, "afterwards")
        return "now"

    engine = create_engine("sqlite://")
    app.state.engine = engine

    @app.get("/stock")
    @timed(STOCK)
    def stock() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("select 7")).scalar_one())

    return app


PATHS = ("/pay/7", "/missing/7", "/broken", "/stream", "/events", "/later", "/stock", "/nowhere")


async def _ask(app: FastAPI, path: str) -> Answer:
    sent: list[MutableMapping[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-request-id", b"mine"), (b"host", b"shop")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])
    forever = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        for message in asked:
            return message
        await forever.wait()
        raise AssertionError("nobody sets it")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except RuntimeError as error:  # what starlette raises again for the server to log
        assert str(error) == "the service's own"  # noqa: PT017 - any other is the library's
    headers = tuple((name, text) for name, text in sent[0]["headers"] if name != b"x-request-id")
    return Answer(sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))


def ask(app: FastAPI, path: str) -> Answer:
    return asyncio.run(_ask(app, path))


BARE = {path: ask(service(), path) for path in PATHS}


@dataclass
class Shop:
    """An instrumented service, and what it recorded."""

    app: FastAPI
    telemetry: Telemetry
    spool: Path

    def errors(self, component: str, kind: str = "PlantedError") -> float:
        labels = {"component": component, "error_type": kind}
        return value(self.telemetry.registry, LIBRARY_ERRORS, **labels)

    def served(self) -> float:
        return value(self.telemetry.registry, REQUEST_DURATION)

    def lines(self) -> list[Line]:
        return [line for line in read_lines(self.spool) if line["message"] == "request served"]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[[], Shop]]:
    made: list[Telemetry] = []

    def begin() -> Shop:
        app = service()
        telemetry = instrument(
            app,
            service_name="shop",
            service_version="1",
            catalogue=Catalogue(service="shop", metrics=(*GROUPS, STOCK)),
            settings=Settings(spool=tmp_path / "spool", max_traces_per_second=1e9),
        )
        telemetry.watch_database(app.state.engine)
        made.append(telemetry)
        return Shop(app, telemetry, tmp_path / "spool")

    yield begin
    for telemetry in made:
        telemetry.close()


class FailingProcessor(SpanProcessor):
    on_start = fail
    on_end = fail


class Hook(NamedTuple):
    """Where a fault is planted. component: what it is counted under. early: before `instrument` is called."""

    component: str
    target: str
    early: bool = False


HOOKS = {
    "redactor": Hook("logs", "taskscope.redaction.rules.Redaction.text", early=True),
    "text cleaner": Hook("logs", "taskscope.logs.ecs.visible"),
    "bound logger": Hook("logs", "taskscope.logs.bound._log"),
    "event's rate": Hook("logs", "taskscope.logs.events.Events.allowed"),
    "plain line": Hook("logs", "taskscope.logs.plain.PlainLines.line"),
    "standard library's handler": Hook("logs", "taskscope.logs.stdlib._message"),
    "choice of the pipeline": Hook("logs", "taskscope.logs.receivers.Receivers.current"),
    "encoder": Hook("logs", "taskscope.logs.ecs.EcsEncoder.line"),
    "spool": Hook("logs", "taskscope.logs.spool.Spool.write"),
    "pipeline": Hook("logs", "taskscope.logs.pipeline.LogPipeline.put"),
    "user's hash": Hook("logs", "taskscope.identity.Identity.hashed"),
    "statement's time": Hook("probes", "taskscope.probes.statements.StatementTimer._find"),
    "histogram": Hook("metrics", "taskscope.metrics.children.bisect_left"),
    "request's series": Hook("metrics", "taskscope.requests.series.RequestSeries.closed"),
    "decorator": Hook("metrics", "taskscope.metrics.runs.Time.ended"),
    "trace's decision": Hook("tracing", "taskscope.tracing.decider.Decider.decide"),
    "span's name": Hook("tracing", "taskscope.tracing.layers.name_span"),
    "span's user": Hook("tracing", "taskscope.tracing.layers.note_user"),
    "span's end": Hook("tracing", "taskscope.tracing.service.Tracing.on_end", early=True),
    "trace's exemplar": Hook("metrics", "taskscope.tracing.exemplar", early=True),
    "request's id": Hook("middleware", "taskscope.requests.ids.RequestIds.cut"),
    "request's opening": Hook("middleware", "taskscope.requests.exchange.Exchange.__init__"),
    "response's opening": Hook(
        "middleware", "taskscope.requests.exchange.Exchange._open_thoroughly"
    ),
    "route": Hook("middleware", "taskscope.routing.route.RouteFinder.find"),
    "outcome": Hook("middleware", "taskscope.requests.exchange.outcome_of"),
    "event stream": Hook("middleware", "taskscope.requests.streams.StreamSeries.open_events"),
    "stream's events": Hook("middleware", "taskscope.requests.streams.Stream.sent_events"),
    "access line": Hook("logs", "taskscope.logs.access.AccessLines._line"),
    "access log": Hook("logs", "taskscope.logs.access.AccessLines.write"),
}


# A request that cannot be opened is served as if the library were not there; one without an id has no line.
SPARING_SERIES = {
    name: hook
    for name, hook in HOOKS.items()
    if name not in ("request's opening", "request's series")
}
SPARING_LINES = {
    name: hook
    for name, hook in HOOKS.items()
    if hook.component != "logs" and name not in ("request's opening", "request's id")
}


def planted(hook: Hook, monkeypatch: pytest.MonkeyPatch, build: Callable[[], Shop]) -> Shop:
    if hook.early:
        monkeypatch.setattr(hook.target, fail)
        return build()
    shop = build()
    monkeypatch.setattr(hook.target, fail)
    return shop


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_fault_in_a_hook_is_counted_and_changes_no_answer(
    hook: Hook, build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = planted(hook, monkeypatch, build)
    assert {path: ask(shop.app, path) for path in PATHS} == BARE
    assert shop.errors(hook.component) >= 1
    assert ask(shop.app, "/metrics").status == 200
    assert value(shop.telemetry.registry, ACTIVE_REQUESTS) == 0


@pytest.mark.parametrize("hook", SPARING_SERIES.values(), ids=SPARING_SERIES)
def test_a_fault_costs_no_observation_of_a_request(
    hook: Hook, build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = planted(hook, monkeypatch, build)
    ask(shop.app, "/pay/7")
    assert shop.served() == 1


@pytest.mark.parametrize("hook", SPARING_LINES.values(), ids=SPARING_LINES)
def test_a_fault_outside_of_the_logs_costs_no_line(
    hook: Hook, build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = planted(hook, monkeypatch, build)
    ask(shop.app, "/pay/7")
    assert [line["url.path"] for line in shop.lines()] == ["/pay/7"]


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_once_the_fault_is_gone_everything_is_recorded_again(
    hook: Hook, build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planting:
        shop = planted(hook, planting, build)
        ask(shop.app, "/pay/7")
    if hook.early:
        return
    served, lines = shop.served(), len(shop.lines())
    ask(shop.app, "/pay/8")
    assert shop.served() == served + 1
    assert len(shop.lines()) == lines + 1


def test_a_span_processor_that_fails_is_counted_and_changes_no_answer(
    build: Callable[[], Shop],
) -> None:
    shop = build()
    assert shop.telemetry.tracing is not None
    shop.telemetry.tracing.provider.add_span_processor(FailingProcessor())
    assert {path: ask(shop.app, path) for path in PATHS} == BARE
    assert shop.errors("tracing") >= 1


def test_a_handler_of_the_service_that_fails_on_our_own_words_is_harmless(
    build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(logging.Handler):
        emit = fail

    shop = build()
    monkeypatch.setattr("taskscope.routing.route.RouteFinder.find", fail)
    own = logging.getLogger("taskscope")
    own.addHandler(handler := Broken())
    try:
        assert {path: ask(shop.app, path) for path in PATHS} == BARE
    finally:
        own.removeHandler(handler)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_faults_in_all_hooks_at_once_changes_no_answer(
    build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)

    def sometimes(original: Callable[..., Any]) -> Callable[..., Any]:
        begun: list[None] = []

        def stormy(*args: Any, **named: Any) -> Any:
            if not begun or chance.random() < 0.5:
                begun.append(None)
                fail()
            return original(*args, **named)

        return stormy

    for hook in HOOKS.values():
        monkeypatch.setattr(hook.target, sometimes(pkgutil.resolve_name(hook.target)))
    shop = build()

    async def storm() -> None:
        for number in range(STORM_REQUESTS):
            path = PATHS[number % len(PATHS)]
            assert await _ask(shop.app, path) == BARE[path]

    asyncio.run(storm())
    monkeypatch.undo()
    assert all(shop.errors(component) >= 1 for component in {h.component for h in HOOKS.values()})
    assert value(shop.telemetry.registry, ACTIVE_REQUESTS) == 0
    served = shop.served()
    assert ask(shop.app, "/pay/7") == BARE["/pay/7"]
    assert shop.served() == served + 1


def test_a_background_task_that_cannot_be_measured_runs_all_the_same(
    build: Callable[[], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = build()
    with monkeypatch.context() as planting:
        planting.setattr("taskscope.metrics.handles.Histogram.at", fail)
        assert ask(shop.app, "/later") == BARE["/later"]
    assert "afterwards" in [line["message"] for line in read_lines(shop.spool)]
    assert shop.errors("middleware") >= 1
