"""An app with more routes than the label may have: the others are counted together, each of them, at no more cost."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from fastapi import FastAPI

from taskscope import Settings, instrument
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    OVERFLOWED,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.catalogue.metric import OVERFLOW
from taskscope.testing.metrics import value

ROUTES = REQUEST_DURATION.label("http.route").cap
BEYOND = 5


@pytest.mark.parametrize("several_workers", [False, True], ids=["memory", "workers"])
def test_each_request_of_a_route_beyond_the_bound_is_counted_and_told(
    several_workers: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    app = FastAPI()
    for number in range(ROUTES + BEYOND):
        app.add_api_route(f"/route-{number}/{{item}}", lambda item: item)
    folder = tmp_path_factory.mktemp("workers", numbered=True) / "own" if several_workers else None
    telemetry = instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(multiprocess_dir=folder),
    )

    async def ask() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            for number in range(ROUTES + BEYOND):
                for item in range(3 if number >= ROUTES else 1):
                    await client.get(f"/route-{number}/{item}")

    asyncio.run(ask())
    registry = telemetry.registry
    for metric in (REQUEST_DURATION, TIME_TO_FIRST_BYTE, RESPONSE_SIZE):
        assert value(registry, metric) == ROUTES + 3 * BEYOND
        assert value(registry, metric, http_route=OVERFLOW) == 3 * BEYOND
        told = value(registry, OVERFLOWED, metric=metric.name, label="http_route")
        assert told == 3 * BEYOND
    assert value(registry, ACTIVE_REQUESTS) == 0
    telemetry.close()
