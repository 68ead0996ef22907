"""Decorated functions that two apps of one process share, on real sockets: each app counts what its requests did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse

from taskscope import Catalogue, Kind, Label, Metric, Settings, Telemetry, instrument
from taskscope.decorators import counted, in_flight, timed
from taskscope.testing.conformance import conformance
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until

STEP = Label("step", values=("route", "thread", "dependency", "background", "stream"))
OUTCOME = Label("outcome", values=("ok", "error", "cancelled"))
STEPS = Metric(
    name="shop.steps",
    kind=Kind.COUNTER,
    unit="{step}",
    help="Steps that ended.",
    owner="shop",
    labels=(STEP, OUTCOME),
)
STREAM_TIME = Metric(
    name="shop.stream_time",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="How long a stream was read.",
    owner="shop",
    labels=(OUTCOME,),
)
OPEN = Metric(
    name="shop.open", kind=Kind.GAUGE, unit="{stream}", help="Open streams.", owner="shop"
)
CATALOGUE = Catalogue(service="shop", metrics=(STEPS, STREAM_TIME, OPEN))


@counted(STEPS, step="route")
async def asked(fail: bool = False) -> str:
    await asyncio.sleep(0)
    if fail:
        raise KeyError("planted")
    return "asked"


@counted(STEPS, step="thread")
def threaded() -> str:
    return "threaded"


@counted(STEPS, step="dependency")
def dependency() -> Iterator[str]:
    yield "depended on"


@counted(STEPS, step="background")
async def later() -> None:
    await asyncio.sleep(0.01)


@timed(STREAM_TIME)
@in_flight(OPEN)
@counted(STEPS, step="stream")
async def ticks() -> AsyncIterator[bytes]:
    while True:
        yield b"tick\n"
        await asyncio.sleep(0.01)


def _app(spool: Path) -> tuple[FastAPI, Telemetry]:
    app = FastAPI()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        catalogue=CATALOGUE,
        settings=Settings(spool=spool),
    )
    app.get("/asked")(asked)
    app.get("/threaded")(threaded)

    @app.get("/depends")
    def depends(told: str = Depends(dependency)) -> str:
        return told

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(later)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(ticks())

    return app, telemetry


@contextmanager
def _two(
    tmp_path: Path, http: Any
) -> Iterator[tuple[httpx2.Client, Telemetry, httpx2.Client, Telemetry]]:
    (first, mine), (second, other) = _app(tmp_path / "1"), _app(tmp_path / "2")
    with (
        serving(first, http=http) as here,
        serving(second, http=http) as there,
        httpx2.Client(base_url=here) as client,
        httpx2.Client(base_url=there) as stranger,
    ):
        yield client, mine, stranger, other


def _steps(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["step"], sample.labels["outcome"]): sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == STEPS.series and sample.value
    }


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_each_app_counts_what_its_own_requests_did(tmp_path: Path, http: Any) -> None:
    with _two(tmp_path, http) as (client, mine, stranger, other):
        for path in ("/asked", "/threaded", "/depends", "/background"):
            assert client.get(path).status_code == 200
        assert client.get("/asked", params={"fail": True}).status_code == 500
        stranger.get("/threaded")
        until(lambda: len(_steps(mine)) == 5, saying="the background task ended")
    assert _steps(mine) == {
        ("route", "ok"): 1,
        ("route", "error"): 1,
        ("thread", "ok"): 1,
        ("dependency", "ok"): 1,
        ("background", "ok"): 1,
    }
    assert _steps(other) == {("thread", "ok"): 1}
    assert conformance(mine).faults == ()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_stream_whose_client_leaves_is_counted_once_and_not_left_open(
    tmp_path: Path, http: Any
) -> None:
    with _two(tmp_path, http) as (client, mine, _stranger, other):
        with client.stream("GET", "/stream") as answer:
            received = answer.iter_raw()  # dropped, it would hang up
            assert next(received).startswith(b"tick")
            assert value(mine.registry, OPEN) == 1
        until(lambda: value(mine.registry, OPEN) == 0, saying="the stream ended")
        assert value(mine.registry, STREAM_TIME) == 1
        assert value(mine.registry, STREAM_TIME, outcome="error") == 0
        assert value(mine.registry, STEPS, step="stream") == 1
    assert _steps(other) == {}
