"""An app on a real socket, as users of the library get it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from taskscope.errors import EngineError
from taskscope.testing.server import serving


def test_an_app_is_served_with_its_lifespan_and_gone_after_the_block() -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append("start")
        yield
        seen.append("stop")

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/", lambda: "here")
    with serving(app) as url:
        seen.append(httpx2.get(url).json())
    port = urlsplit(url).port
    assert seen == ["start", "here", "stop"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=1)


def test_an_app_that_does_not_start_is_an_error() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with (
        pytest.raises(EngineError, match="look at what the app's lifespan raised"),
        serving(FastAPI(lifespan=lifespan)),
    ):
        pass
