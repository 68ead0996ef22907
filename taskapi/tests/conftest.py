"""One task API in this process for each test: a database file of its own, a state folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.registry import CollectorRegistry

import taskscope
from taskscope_taskapi.app import create_app
from taskscope_taskapi.models import User
from taskscope_taskapi.service import Service
from taskscope_taskapi.settings import Settings

PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A running application and a client that speaks to it without a socket."""

    app: FastAPI
    http: httpx2.AsyncClient

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def registry(self) -> CollectorRegistry:
        registry: CollectorRegistry = self.app.state.telemetry.registry
        return registry

    async def register(self, name: str) -> None:
        answer = await self.http.post(
            "/api/v1/auth/register",
            json={"username": name, "email": f"{name}@example.com", "password": PASSWORD},
        )
        assert answer.status_code == 201, answer.text

    async def login(self, name: str) -> dict[str, Any]:
        answer = await self.http.post(
            "/api/v1/auth/login", json={"username": name, "password": PASSWORD}
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()["data"]
        return tokens

    async def user(self, name: str) -> dict[str, str]:
        """The headers with which a new user speaks; no password is hashed for it."""
        user = User(username=name, email=f"{name}@example.com", password_hash="none")
        async with self.service.database.writing() as session:
            session.add(user)
        return {"Authorization": f"Bearer {self.service.tokens.issue(user.id, 'access')}"}


ApiMaker = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(**{"state_dir": tmp_path, "hash_wait_s": 5.0, **changes})

    return make


@pytest.fixture
def make_api(tmp_path: Path, make_settings: Callable[..., Settings]) -> ApiMaker:
    @asynccontextmanager
    async def running(*, peer: str = "127.0.0.1", **changes: Any) -> AsyncIterator[Api]:
        telemetry = taskscope.Settings(spool=tmp_path / "spool")
        app = create_app(make_settings(**changes), telemetry=telemetry)
        transport = httpx2.ASGITransport(app=app, client=(peer, 40_000))
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://tasks.example") as http,
        ):
            yield Api(app=app, http=http)

    return running


@pytest.fixture
async def api(make_api: ApiMaker) -> AsyncIterator[Api]:
    async with make_api(rate_limit=10_000) as running:
        yield running
