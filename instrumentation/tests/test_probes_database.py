"""The database probe: SQLAlchemy's own pools, read at the scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import isinf, isnan

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from taskscope.catalogue.builtin import DB_CONNECTIONS, DB_CONNECTIONS_MAX, LIBRARY_ERRORS
from taskscope.metrics.instruments import Instruments
from taskscope.probes.database import DatabaseProbe
from taskscope.testing.metrics import isolated, value

Read = Callable[[], tuple[float, float, float]]


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


@pytest.fixture
def probe(instruments: Instruments) -> DatabaseProbe:
    return DatabaseProbe(instruments)


@pytest.fixture
def pool(instruments: Instruments) -> Read:
    """Used, idle and most connections, as a scrape sees them."""

    def read() -> tuple[float, float, float]:
        registry = instruments.registry
        return (
            value(registry, DB_CONNECTIONS, db_client_connection_state="used"),
            value(registry, DB_CONNECTIONS, db_client_connection_state="idle"),
            value(registry, DB_CONNECTIONS_MAX),
        )

    return read


def _queued(size: int = 3, overflow: int = 2) -> Engine:
    return create_engine("sqlite://", poolclass=QueuePool, pool_size=size, max_overflow=overflow)


@pytest.mark.usefixtures("probe")
def test_without_an_engine_all_is_zero(pool: Read) -> None:
    assert pool() == (0, 0, 0)


def test_a_connection_is_used_then_idle(probe: DatabaseProbe, pool: Read) -> None:
    engine = _queued()
    probe.watch(engine)
    with engine.connect():
        during = pool()
    assert (during, pool()) == ((1, 0, 5), (0, 1, 5))
    engine.dispose()


def test_a_pool_that_was_replaced_is_followed(probe: DatabaseProbe, pool: Read) -> None:
    engine = _queued()
    probe.watch(engine)
    with engine.connect():
        pass
    engine.dispose()
    assert pool() == (0, 0, 5)


def test_engines_add_up_and_the_same_one_counts_once(probe: DatabaseProbe, pool: Read) -> None:
    primary, replica = _queued(), _queued(size=10, overflow=0)
    for engine in (primary, replica, primary):
        probe.watch(engine)
    assert pool() == (0, 0, 15)


def test_an_async_engine_is_watched(
    probe: DatabaseProbe, pool: Read, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("db") / "a.db"

    async def use() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=4, max_overflow=0)
        probe.watch(engine)
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
            during = pool()
        after = pool()
        await engine.dispose()
        return during, after

    assert asyncio.run(use()) == ((1, 0, 4), (0, 1, 4))


@pytest.mark.parametrize("kind", [NullPool, StaticPool])
def test_a_pool_that_counts_nothing_adds_nothing(
    probe: DatabaseProbe, pool: Read, kind: type[NullPool | StaticPool]
) -> None:
    engine = create_engine("sqlite://", poolclass=kind)
    probe.watch(engine)
    assert pool() == (0, 0, 0)
    engine.dispose()


def test_a_pool_without_a_limit_has_an_infinite_one(probe: DatabaseProbe, pool: Read) -> None:
    probe.watch(_queued(overflow=-1))
    assert isinf(pool()[2])


def test_a_pool_that_fails_is_nan_and_counted(
    probe: DatabaseProbe, pool: Read, instruments: Instruments
) -> None:
    class Broken:
        @property
        def pool(self) -> object:
            raise RuntimeError("planted")

    probe.watch(Broken())
    assert all(isnan(number) for number in pool())
    assert value(instruments.registry, LIBRARY_ERRORS, component="probes") >= 3
