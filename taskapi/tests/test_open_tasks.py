"""The gauge of open tasks: right after a restart, patient with a lost database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from taskscope.testing import waiting
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import value
from taskscope_taskapi.catalogue import TASKS_OPEN
from taskscope_taskapi.database import Database, DatabaseUnavailable

from .conftest import Api, ApiMaker

until = partial(waiting.until_async, within_s=10)

pytestmark = pytest.mark.anyio


def counted(api: Api) -> tuple[float, float]:
    return (
        value(api.registry, TASKS_OPEN, status="todo"),
        value(api.registry, TASKS_OPEN, status="in_progress"),
    )


async def test_the_gauge_follows_the_table(make_api: ApiMaker) -> None:
    async with make_api(open_tasks_s=0.01) as api:
        ann = await api.user("ann")
        for status in ("todo", "todo", "in_progress", "done"):
            await api.http.post("/api/v1/tasks", headers=ann, json={"title": "t", "status": status})
        await until(lambda: counted(api) == (2, 1))


async def test_the_gauge_is_right_at_once_after_a_restart(make_api: ApiMaker) -> None:
    async with make_api() as api:
        ann = await api.user("ann")
        await api.http.post("/api/v1/tasks", headers=ann, json={"title": "t"})
    async with make_api() as api:
        await until(lambda: counted(api) == (1, 0))


async def test_a_lost_database_is_logged_once_and_counted_again_when_it_is_back(
    make_api: ApiMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    @asynccontextmanager
    async def lost(self: Database) -> AsyncIterator[AsyncSession]:
        nonlocal tries
        tries += 1
        raise DatabaseUnavailable("away")
        yield

    async with make_api(open_tasks_s=0.005) as api:
        ann = await api.user("ann")
        with monkeypatch.context() as patch:
            patch.setattr(Database, "reading", lost)
            await until(lambda: tries > 5)
        await api.http.post("/api/v1/tasks", headers=ann, json={"title": "t"})
        await until(lambda: counted(api) == (1, 0))
    lines = [line for line in read_lines(tmp_path / "spool") if "not counted" in str(line)]
    assert len(lines) == 1


async def test_a_stopped_service_counts_no_more(make_api: ApiMaker) -> None:
    async with make_api(open_tasks_s=0.001):
        pass
    with contextlib.suppress(RuntimeError):
        names = {getattr(task.get_coro(), "__name__", "") for task in asyncio.all_tasks()}
        assert "keep_counting" not in names
