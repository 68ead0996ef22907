"""The same service over PostgreSQL: the main flow, two instances at once, and never more than twenty connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

import taskscope
from taskscope.testing.engines import free_port, new_password, running
from taskscope.testing.engines.postgres import dsn, postgres
from taskscope.testing.metrics import moved
from taskscope.testing.waiting import until_async
from taskscope_taskapi.app import create_app
from taskscope_taskapi.catalogue import TASKS_COMPLETED
from taskscope_taskapi.database import Database, DatabaseUnavailable
from taskscope_taskapi.settings import Settings

from .conftest import Api

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

OPEN = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE application_name = 'taskapi' AND pid <> pg_backend_pid()"
)
TASKS = "/api/v1/tasks"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, password = free_port(), new_password()
    folder = tmp_path_factory.mktemp("postgres")
    with running(postgres(folder, port=port, password=password)):
        yield dsn(port=port, password=password).replace("postgresql:", "postgresql+asyncpg:", 1)


@pytest.fixture
async def fresh(url: str, make_settings: Callable[..., Settings]) -> str:
    """The URL of the database, empty again."""
    database = Database(make_settings(database_url=url))
    async with database.writing() as session:
        await session.execute(text("DROP TABLE IF EXISTS refresh_tokens, tasks, users CASCADE"))
    await database.close()
    return url


@asynccontextmanager
async def instances(
    count: int, url: str, folder: Path, make_settings: Callable[..., Settings], **changes: Any
) -> AsyncIterator[list[Api]]:
    """So many instances that start at once over one database."""
    settings = make_settings(database_url=url, rate_limit=10_000, **changes)
    apps = [
        create_app(settings, telemetry=taskscope.Settings(spool=folder / f"spool-{number}"))
        for number in range(count)
    ]
    async with AsyncExitStack() as stack:
        for _, app in zip(range(count), apps, strict=True):
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield [
            Api(
                app=app,
                http=await stack.enter_async_context(
                    httpx2.AsyncClient(
                        transport=httpx2.ASGITransport(app=app), base_url="http://tasks.example"
                    )
                ),
            )
            for app in apps
        ]


async def test_the_main_flow_works_over_postgres(
    fresh: str, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    async with instances(1, fresh, tmp_path, make_settings) as (api,):
        ann = await api.user("ann")
        created = await api.http.post(TASKS, headers=ann, json={"title": "t\x00", "status": "todo"})
        path = created.headers["location"]
        with moved(api.registry, TASKS_COMPLETED, by=1):
            answers = await asyncio.gather(
                *(api.http.patch(path, headers=ann, json={"status": "done"}) for _ in range(8))
            )
        numbers = await api.http.get(f"{TASKS}/statistics", headers=ann)
        listed = await api.http.get(f"{TASKS}?status=done", headers=ann)
        deleted = await api.http.delete(path, headers=ann)
        ready = await api.http.get("/readyz")
    assert {answer.status_code for answer in answers} == {200}
    assert numbers.json()["data"]["by_status"] == {"todo": 0, "in_progress": 0, "done": 1}
    assert listed.json()["data"][0]["completed_at"].endswith("Z")
    assert (deleted.status_code, ready.status_code) == (204, 200)


async def test_a_stolen_refresh_token_ends_its_family_over_postgres(
    fresh: str, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    async with instances(2, fresh, tmp_path, make_settings) as (one, two):
        await one.register("ann")
        body = {"refresh_token": (await one.login("ann"))["refresh_token"]}
        answers = await asyncio.gather(
            *(api.http.post("/api/v1/auth/refresh", json=body) for api in (one, two) * 3)
        )
        (won,) = (answer for answer in answers if answer.status_code == 200)
        late = {"refresh_token": won.json()["data"]["refresh_token"]}
        after = await two.http.post("/api/v1/auth/refresh", json=late)
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    assert after.status_code == 401


async def test_instances_that_start_at_once_make_the_tables_once(
    fresh: str, make_settings: Callable[..., Settings]
) -> None:
    databases = [Database(make_settings(database_url=fresh)) for _ in range(6)]
    await asyncio.gather(*(database._create_schema() for database in databases))
    await databases[0].ping()
    for database in databases:
        await database.close()


async def test_a_crowd_never_takes_more_than_twenty_connections(
    fresh: str, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    watcher = Database(make_settings(database_url=fresh))
    async with instances(1, fresh, tmp_path, make_settings, pool_wait_s=10.0) as (api,):
        ann = await api.user("ann")
        seen = []
        async with watcher.reading() as session:
            # While the table is held nobody gets done, so all connections that can be open are.
            await session.execute(text("LOCK TABLE tasks IN EXCLUSIVE MODE"))
            crowd = [
                asyncio.create_task(
                    api.http.post(TASKS, headers=ann, json={"title": f"t {number}"})
                )
                for number in range(120)
            ]

            async def full() -> bool:
                await session.execute(text("SELECT pg_stat_clear_snapshot()"))
                seen.append(await session.scalar(text(OPEN)) or 0)
                return len(seen) > 20 and seen[-20:] == [20] * 20

            await until_async(full, within_s=8.0, saying="twenty connections are open, and stay")
            await session.rollback()
        statuses = {(await task).status_code for task in crowd}
    await watcher.close()
    assert statuses == {201}
    assert max(seen) == 20


async def test_a_statement_that_takes_too_long_is_ended(
    fresh: str, make_settings: Callable[..., Settings]
) -> None:
    database = Database(make_settings(database_url=fresh, statement_s=0.2))
    await database.create_schema()

    async def sleeping() -> None:
        async with database.reading() as session:
            await session.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(DatabaseUnavailable):
        await sleeping()
    await database.ping()
    await database.close()


async def test_a_wrong_password_is_a_database_that_does_not_answer(
    fresh: str, make_settings: Callable[..., Settings]
) -> None:
    head, _, place = fresh.partition("@")
    database = Database(make_settings(database_url=f"{head}x@{place}"))
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.close()
