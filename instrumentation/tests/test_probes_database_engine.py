"""The database probe over PostgreSQL: a crowd before a small pool, a replica beside it, statements that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from taskscope.catalogue.builtin import (
    DB_CONNECTIONS,
    DB_OPERATION_DURATION,
    DB_PENDING,
    DB_TIMEOUTS,
    DB_WAIT_TIME,
)
from taskscope.metrics.instruments import Instruments
from taskscope.probes.database import DatabaseProbe
from taskscope.testing.engines import Running, free_port, new_password, running
from taskscope.testing.engines.postgres import dsn, postgres
from taskscope.testing.metrics import isolated, value

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, password = free_port(), new_password()
    folder = tmp_path_factory.mktemp("postgres")
    with running(postgres(folder, port=port, password=password)):
        yield dsn(port=port, password=password).replace("postgresql:", "postgresql+asyncpg:", 1)


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


async def engine_of(url: str, *, patience_s: float = 10.0) -> AsyncEngine:
    """An engine of five connections that has connected once: SQLAlchemy first asks for version and schema."""
    engine = create_async_engine(url, pool_size=5, max_overflow=0, pool_timeout=patience_s)
    async with engine.connect():
        pass
    return engine


async def sleeping(engine: AsyncEngine, seconds: float) -> bool:
    """Whether a connection was there in time."""
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(:s)"), {"s": seconds})
    except PoolTimeout:
        return False
    return True


async def most_waiting(instruments: Instruments, crowd: asyncio.Future[list[bool]]) -> float:
    most = 0.0
    while not crowd.done():
        most = max(most, value(instruments.registry, DB_PENDING))
        await asyncio.sleep(0.005)
    return most


def test_fifty_sleepers_before_five_connections_wait_and_are_timed(
    url: str, instruments: Instruments
) -> None:
    async def use() -> tuple[float, list[bool]]:
        engine = await engine_of(url)
        DatabaseProbe(instruments).watch(engine)
        crowd = asyncio.gather(*(sleeping(engine, 0.05) for _ in range(50)))
        most = await most_waiting(instruments, crowd)
        await engine.dispose()
        return most, await crowd

    most, served = asyncio.run(use())
    registry = instruments.registry
    assert served == [True] * 50
    assert most == 45
    assert value(registry, DB_PENDING) == 0
    assert value(registry, DB_WAIT_TIME) == 50
    # Nine rounds of five wait for 1, 2, … 9 sleeps.
    assert value(registry, DB_WAIT_TIME, part="sum") >= 5 * sum(range(1, 10)) * 0.05
    assert value(registry, DB_TIMEOUTS) == 0
    assert value(registry, DB_OPERATION_DURATION, db_operation_name="SELECT", outcome="ok") == 50
    slept = value(registry, DB_OPERATION_DURATION, part="sum", db_operation_name="SELECT")
    assert slept >= 50 * 0.05


def test_who_gives_up_is_a_timeout_each(url: str, instruments: Instruments) -> None:
    async def use() -> list[bool]:
        engine = await engine_of(url, patience_s=0.2)
        DatabaseProbe(instruments).watch(engine)
        served = await asyncio.gather(*(sleeping(engine, 1.0) for _ in range(50)))
        await engine.dispose()
        return served

    served = asyncio.run(use())
    assert served.count(False) == 45
    assert value(instruments.registry, DB_TIMEOUTS) == 45
    assert value(instruments.registry, DB_WAIT_TIME) == 50
    assert value(instruments.registry, DB_PENDING) == 0


def test_primary_and_replica_are_two_roles_of_one_pool_sum(
    url: str, instruments: Instruments
) -> None:
    async def use() -> float:
        probe = DatabaseProbe(instruments)
        primary, replica = await engine_of(url), await engine_of(url)
        probe.watch(primary)
        probe.watch(replica, role="replica")
        async with primary.connect() as one, replica.connect() as two:
            await one.execute(text("CREATE TEMP TABLE t (id int)"))
            await one.execute(text("INSERT INTO t VALUES (1)"))
            await one.commit()
            await two.execute(text("SELECT 1"))
            used = value(instruments.registry, DB_CONNECTIONS, db_client_connection_state="used")
        await primary.dispose()
        await replica.dispose()
        return used

    used = asyncio.run(use())

    def counted(operation: str, role: str) -> float:
        return value(
            instruments.registry, DB_OPERATION_DURATION, db_operation_name=operation, role=role
        )

    assert used == 2
    assert [counted(name, "primary") for name in ("INSERT", "COMMIT", "SELECT")] == [1, 1, 0]
    assert [counted(name, "replica") for name in ("INSERT", "COMMIT", "SELECT")] == [0, 0, 1]


def test_statements_that_fail_or_are_cancelled_are_errors(
    url: str, instruments: Instruments
) -> None:
    async def use() -> float:
        engine = await engine_of(url)
        DatabaseProbe(instruments).watch(engine)
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="division by zero"):
                await connection.execute(text("SELECT 1 / 0"))
        started = monotonic()
        async with engine.connect() as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute(text("SELECT pg_sleep(30)")), 0.1)
        took_s = monotonic() - started
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()
        return took_s

    assert asyncio.run(use()) < 10
    registry = instruments.registry
    assert value(registry, DB_OPERATION_DURATION, outcome="error") == 2
    assert value(registry, DB_OPERATION_DURATION, outcome="ok", db_operation_name="SELECT") == 1


def test_a_server_that_is_killed_is_an_error_and_nobody_waits_for_ever(
    tmp_path: Path, instruments: Instruments
) -> None:
    port, password = free_port(), new_password()
    place = dsn(port=port, password=password).replace("postgresql:", "postgresql+asyncpg:", 1)

    async def use(server: Running) -> list[object]:
        engine = await engine_of(place)
        await asyncio.gather(*(sleeping(engine, 0.1) for _ in range(5)))  # all five are open
        DatabaseProbe(instruments).watch(engine)
        crowd = asyncio.gather(*(sleeping(engine, 30) for _ in range(9)), return_exceptions=True)
        deadline = monotonic() + 10
        while value(instruments.registry, DB_PENDING) < 4:
            assert monotonic() < deadline
            await asyncio.sleep(0.005)
        server.kill()
        ended: list[object] = await crowd
        await engine.dispose()
        return ended

    with running(postgres(tmp_path, port=port, password=password)) as server:
        ended = asyncio.run(use(server))
    assert all(isinstance(one, DBAPIError | OSError) for one in ended)
    assert value(instruments.registry, DB_OPERATION_DURATION, outcome="error") == 5
    assert value(instruments.registry, DB_PENDING) == 0
    assert value(instruments.registry, DB_WAIT_TIME) == 9
