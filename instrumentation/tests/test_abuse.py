"""A service that scanners, bots and broken clients call keeps its series, memory and files flat."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from taskscope import Settings, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.testing.abuse import abuse, rehearse, request_bytes
from taskscope.testing.metrics import value
from taskscope.testing.server import serving

PATHS = ("/items/7", "/items/x", "/broken", "/items/7/")


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_abuse_leaves_nothing_behind(tmp_path: Path, http: Literal["h11", "httptools"]) -> None:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("planted")

    settings = Settings(spool=tmp_path / "spool", trace_ratio=0.01)
    telemetry = instrument(app, service_name="test", service_version="1", settings=settings)

    def series() -> int:
        lines = telemetry.metrics().decode().splitlines()
        return sum(not line.startswith("#") for line in lines)

    with serving(app, http=http) as url:
        port = urlsplit(url).port or 0
        asyncio.run(rehearse(port, paths=PATHS, left=10))
        asyncio.run(abuse(port, seconds=20, seed=1, paths=PATHS, most=1_500))
        warm, memory, files = series(), _memory(), _files()
        told = asyncio.run(abuse(port, seconds=20, seed=2, paths=PATHS, most=1_500))
        # A client that leaves early may do so a moment earlier than any before; what ran away would be thousands.
        assert series() - warm <= 30
        assert _memory() - memory < 8 * 1024 * 1024
        assert _files() - files < 16
    assert told.total() >= 1_500
    assert set(told) <= {0, 200, 307, 400, 404, 405, 422, 500}
    assert value(telemetry.registry, LIBRARY_ERRORS) == 0
    routes = {
        sample.labels["http_route"]
        for family in telemetry.registry.collect()
        if family.name == REQUEST_DURATION.family
        for sample in family.samples
    }
    assert routes == {"/items/{number}", "/broken", "unmatched"}
    telemetry.close()


def test_the_same_seed_gives_the_same_requests() -> None:
    first, second = random.Random(7), random.Random(7)
    assert [request_bytes(first, PATHS) for _ in range(50)] == [
        request_bytes(second, PATHS) for _ in range(50)
    ]
