"""What FastAPI takes as an endpoint or a dependency it takes decorated too: same signature, same kind, one run each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from taskscope import Catalogue, Kind, Label, Metric, Telemetry, in_flight, instrument, timed
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.testing.metrics import value

TIME = Metric(
    name="shop.steps",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Steps of a request.",
    owner="shop",
    labels=(Label("outcome", values=("ok", "error", "cancelled")),),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{step}", help="Steps now.", owner="shop")


@timed(TIME)
def plain(number: int = 1) -> int:
    return number


@timed(TIME)
async def coroutine(number: int = 1) -> int:
    return number


@timed(TIME)
@in_flight(OPEN)
def generator(number: int = 1) -> Iterator[int]:
    yield number


@timed(TIME)
@in_flight(OPEN)
async def async_generator(number: int = 1) -> AsyncIterator[int]:
    yield number


class Steps:
    @timed(TIME)
    def __call__(self, number: int = 1) -> int:
        return number

    @timed(TIME)
    async def method(self, number: int = 1) -> int:
        return number

    @staticmethod
    @timed(TIME)
    def static(number: int = 1) -> int:
        return number

    @timed(TIME)
    @classmethod
    def of_class(cls, number: int = 1) -> int:
        return number


async def of_two(offset: int, number: int = 1) -> int:
    return offset + number


DEPENDENCIES: dict[str, Callable[..., Any]] = {
    "function": plain,
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
    "callable object": Steps(),
    "bound method": Steps().method,
    "static method": Steps.static,
    "class method": Steps.of_class,
    "partial": timed(TIME)(partial(of_two, 0)),
    "cached function": timed(TIME)(lru_cache(lambda number=1: int(number))),
}


def service() -> tuple[FastAPI, Telemetry]:
    app = FastAPI()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        catalogue=Catalogue(service="shop", metrics=(TIME, OPEN)),
        logs=False,
    )
    return app, telemetry


def runs(telemetry: Telemetry) -> tuple[float, float, float]:
    """How many ended well, how many failed, how many are open."""
    registry = telemetry.registry
    ok, failed = (value(registry, TIME, outcome=each) for each in ("ok", "error"))
    return ok, failed, value(registry, OPEN)


@pytest.mark.parametrize("dependency", DEPENDENCIES.values(), ids=DEPENDENCIES.keys())
def test_a_decorated_dependency_is_one_run_and_keeps_its_parameters(
    dependency: Callable[..., Any],
) -> None:
    app, telemetry = service()

    @app.get("/")
    async def endpoint(number: int = Depends(dependency)) -> int:
        return number

    with TestClient(app) as client:
        assert client.get("/?number=7").json() == 7
        (parameter,) = client.get("/openapi.json").json()["paths"]["/"]["get"]["parameters"]
    assert parameter["name"] == "number"
    assert runs(telemetry) == (1, 0, 0)
    assert value(telemetry.registry, LIBRARY_ERRORS) == 0


@pytest.mark.parametrize("dependency", [generator, async_generator])
def test_a_dependency_that_yields_is_told_of_the_endpoints_failure(
    dependency: Callable[..., Any],
) -> None:
    app, telemetry = service()

    @app.get("/")
    @timed(TIME)
    async def endpoint(_number: int = Depends(dependency)) -> None:
        raise ValueError("planted")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 500
    assert runs(telemetry) == (0, 2, 0)


def test_a_decorated_stream_is_one_run_from_its_first_part_to_its_last() -> None:
    app, telemetry = service()

    @timed(TIME)
    @in_flight(OPEN)
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    with TestClient(app) as client:
        assert client.get("/").text == "ab"
    assert runs(telemetry) == (1, 0, 0)


def test_decorated_background_tasks_are_measured_by_the_app_of_their_request() -> None:
    app, telemetry = service()
    _, other = service()

    @app.get("/")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain)
        tasks.add_task(coroutine)

    with TestClient(app) as client:
        client.get("/")
    assert (runs(telemetry), runs(other)) == ((2, 0, 0), (0, 0, 0))
