"""Background tasks: no part of a request, in series of their own, and never an error of a response that was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import BACKGROUND_DURATION, LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.requests.background import watch
from taskscope.testing.metrics import value


async def slow() -> None:
    await asyncio.sleep(0.2)


async def broken() -> None:
    raise RuntimeError("broken afterwards")


def in_a_thread() -> None:
    return None


def service() -> FastAPI:
    app = FastAPI()

    @app.get("/list")
    async def several(tasks: BackgroundTasks) -> None:
        tasks.add_task(slow)
        tasks.add_task(in_a_thread)

    @app.get("/one/{kind}")
    async def one(kind: str) -> Response:
        chosen: dict[str, Callable[[], Any]] = {"broken": broken, "thread": in_a_thread}
        return PlainTextResponse("sent", background=BackgroundTask(chosen[kind]))

    @app.get("/waits")
    async def waits(tasks: BackgroundTasks) -> None:
        async def wait() -> None:
            app.state.running.set()
            await asyncio.Event().wait()

        tasks.add_task(wait)

    return app


def measured(app: FastAPI) -> Telemetry:
    return instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(),
    )


def ask(app: Any, path: str) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(request())


@pytest.fixture
def app() -> FastAPI:
    return service()


def test_a_task_is_no_part_of_its_requests_duration(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "/list")
    assert value(registry, REQUEST_DURATION, part="sum", http_route="/list") < 0.15
    assert value(registry, BACKGROUND_DURATION, part="sum", http_route="/list") >= 0.2


def test_a_list_is_counted_task_by_task(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "/list")
    assert value(registry, BACKGROUND_DURATION, http_route="/list", outcome="ok") == 2


def test_a_task_that_fails_is_an_error_of_the_task_alone(app: FastAPI) -> None:
    registry = measured(app).registry
    assert ask(app, "/one/broken").status_code == 200
    assert value(registry, BACKGROUND_DURATION, http_route="/one/{kind}", outcome="error") == 1
    assert value(registry, REQUEST_DURATION, outcome="ok") == value(registry, REQUEST_DURATION) == 1


def test_another_failure_after_the_last_byte_is_the_requests_own(app: FastAPI) -> None:
    async def careless() -> Any:
        yield "given"
        raise RuntimeError("broken while it was taken back")

    @app.get("/careless")
    async def given(text: str = Depends(careless)) -> str:
        return text

    registry = measured(app).registry
    ask(app, "/careless")
    assert value(registry, REQUEST_DURATION, outcome="server_error") == 1


def test_a_task_that_is_cancelled_is_counted_as_that_and_the_request_is_ok(app: FastAPI) -> None:
    registry = measured(app).registry

    async def cancel() -> None:
        app.state.running = asyncio.Event()
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            task = asyncio.create_task(client.get("/waits"))
            await app.state.running.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert value(registry, BACKGROUND_DURATION, outcome="cancelled") == 1
    assert value(registry, REQUEST_DURATION, outcome="ok") == 1


def test_a_task_in_a_thread_is_counted(app: FastAPI) -> None:
    registry = measured(app).registry
    ask(app, "/one/thread")
    assert value(registry, BACKGROUND_DURATION, outcome="ok") == 1


def test_tasks_are_counted_behind_a_base_http_middleware(app: FastAPI) -> None:
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    registry = measured(app).registry
    ask(app, "/one/thread")
    assert value(registry, BACKGROUND_DURATION, http_route="/one/{kind}", outcome="ok") == 1


def test_each_application_counts_its_own_tasks() -> None:
    apps = [service(), service()]
    registries = [measured(app).registry for app in apps]
    ask(apps[1], "/one/thread")
    assert [value(registry, BACKGROUND_DURATION) for registry in registries] == [0, 1]


def test_an_application_that_is_not_instrumented_runs_its_tasks(app: FastAPI) -> None:
    registry = measured(service()).registry
    assert ask(app, "/one/thread").text == "sent"
    assert value(registry, BACKGROUND_DURATION) == 0


def test_watching_twice_changes_nothing() -> None:
    watch()
    watched = BackgroundTask.__call__
    watch()
    assert BackgroundTask.__call__ is watched


def test_a_fault_of_ours_fails_no_task(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = measured(app).registry

    def planted(_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.requests.exchange.Exchange.known_route", planted)
    assert ask(app, "/one/thread").text == "sent"
    assert value(registry, LIBRARY_ERRORS, component="middleware") >= 1
