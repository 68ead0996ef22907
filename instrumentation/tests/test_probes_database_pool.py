"""Waiting for the pool: who waits, for how long, who gave up; under threads and under asyncio."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Barrier, Thread
from time import monotonic, sleep

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from taskscope.catalogue.builtin import (
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    DB_PENDING,
    DB_TIMEOUTS,
    DB_WAIT_TIME,
    LIBRARY_ERRORS,
)
from taskscope.metrics.instruments import Instruments
from taskscope.probes.database import DatabaseProbe
from taskscope.testing.metrics import isolated, value
from taskscope.testing.waiting import until, until_async


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


@pytest.fixture
def probe(instruments: Instruments) -> DatabaseProbe:
    return DatabaseProbe(instruments)


def engine_of(folder: Path, *, timeout: float = 5.0, size: int = 1, overflow: int = 0) -> Engine:
    return create_engine(
        f"sqlite:///{folder / 'a.db'}",
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=timeout,
    )


def async_engine_of(folder: Path, *, timeout: float = 5.0, size: int = 1) -> AsyncEngine:
    return create_async_engine(
        f"sqlite+aiosqlite:///{folder / 'a.db'}",
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
    )


def waiting(instruments: Instruments) -> float:
    return value(instruments.registry, DB_PENDING)


def seen(instruments: Instruments) -> tuple[float, float, float]:
    """Waiting now, checkouts, timeouts."""
    return (
        waiting(instruments),
        value(instruments.registry, DB_WAIT_TIME),
        value(instruments.registry, DB_TIMEOUTS),
    )


def waited_s(instruments: Instruments) -> float:
    return value(instruments.registry, DB_WAIT_TIME, part="sum")


def test_who_does_not_wait_waited_for_no_time(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, size=2, overflow=1)
    probe.watch(engine)
    with engine.connect(), engine.connect(), engine.connect():
        pass
    with engine.connect():
        pass
    assert seen(instruments) == (0, 4, 0)
    assert waited_s(instruments) < 0.01


def test_threads_that_wait_are_seen_and_timed(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path)
    probe.watch(engine)

    def use() -> None:
        with engine.connect():
            pass

    threads = [Thread(target=use) for _ in range(8)]
    with engine.connect():
        for thread in threads:
            thread.start()
        until(lambda: waiting(instruments) == 8, within_s=10)
        held_from = monotonic()
        sleep(0.02)
        held_s = monotonic() - held_from
    for thread in threads:
        thread.join()
    assert seen(instruments) == (0, 9, 0)
    assert waited_s(instruments) >= 8 * held_s


def test_a_thread_that_gives_up_is_a_timeout(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, timeout=0.05)
    probe.watch(engine)
    with engine.connect(), pytest.raises(PoolTimeout):
        engine.connect()
    assert seen(instruments) == (0, 2, 1)
    assert waited_s(instruments) >= 0.045


def test_a_stampede_of_threads_is_counted_to_the_last(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, size=2)
    probe.watch(engine)
    gate = Barrier(12)

    def use() -> None:
        gate.wait()
        for _ in range(20):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

    threads = [Thread(target=use) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now, checkouts, timeouts = seen(instruments)
    # A thread that loses a race for the last free place asks the pool's queue again.
    assert (now, timeouts) == (0, 0)
    assert 240 <= checkouts <= 252


async def _crowd(engine: AsyncEngine, count: int) -> list[asyncio.Task[None]]:
    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    return [asyncio.create_task(use()) for _ in range(count)]


def test_tasks_that_wait_are_seen_and_timed(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    async def use() -> float:
        engine = async_engine_of(tmp_path)
        probe.watch(engine)
        async with engine.connect():
            crowd = await _crowd(engine, 100)
            await until_async(lambda: waiting(instruments) == 100, within_s=10)
            held_from = monotonic()
            await asyncio.sleep(0.02)
            held_s = monotonic() - held_from
        await asyncio.gather(*crowd)
        await engine.dispose()
        return held_s

    held_s = asyncio.run(use())
    assert seen(instruments) == (0, 101, 0)
    assert waited_s(instruments) >= 100 * held_s


def test_a_task_that_gives_up_is_a_timeout_and_a_cancelled_one_is_none(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    async def use() -> None:
        engine = async_engine_of(tmp_path, timeout=0.1)
        probe.watch(engine)
        async with engine.connect():
            cancelled, refused = await _crowd(engine, 2)
            await until_async(lambda: waiting(instruments) == 2, within_s=10)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert waiting(instruments) == 1
            with pytest.raises(PoolTimeout):
                await refused
        await engine.dispose()

    asyncio.run(use())
    assert seen(instruments) == (0, 3, 1)


def test_the_pool_after_a_dispose_is_watched_too(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, timeout=0.05)
    probe.watch(engine)
    for _ in range(3):
        with engine.connect():
            pass
        engine.dispose()
    assert seen(instruments) == (0, 3, 0)
    with engine.connect(), pytest.raises(PoolTimeout):
        engine.connect()
    assert seen(instruments) == (0, 5, 1)


def test_a_pool_that_two_engines_share_counts_once(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    first = engine_of(tmp_path, size=3)
    second = create_engine(first.url, pool=first.pool)
    for engine in (first, second):
        probe.watch(engine)
    with second.connect():
        used = value(instruments.registry, DB_CONNECTIONS, db_client_connection_state="used")
    assert used == 1
    assert value(instruments.registry, DB_CONNECTIONS_MAX) == 3
    assert seen(instruments) == (0, 1, 0)


def test_an_engine_of_two_services_is_watched_by_both(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    both = isolated(), isolated()
    for instruments in both:
        DatabaseProbe(instruments).watch(engine)
    engine.dispose()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert [seen(instruments) for instruments in both] == [(0, 1, 0)] * 2


def test_a_connection_that_cannot_be_opened_is_no_timeout(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}", pool_size=1, max_overflow=0
    )
    probe.watch(engine)
    with pytest.raises(Exception, match="unable to open"):
        engine.connect()
    assert seen(instruments) == (0, 1, 0)


def test_a_pool_without_a_queue_makes_nobody_wait(
    probe: DatabaseProbe, instruments: Instruments, tmp_path: Path
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", poolclass=NullPool)
    probe.watch(engine)
    with engine.connect():
        pass
    assert seen(instruments) == (0, 0, 0)


def test_a_measurement_that_fails_is_counted_and_the_checkout_goes_on(
    probe: DatabaseProbe,
    instruments: Instruments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Planted:
        def observe(self, _: float) -> None:
            raise RuntimeError("planted")

    monkeypatch.setattr(probe._waiters, "_wait_time", Planted())
    engine = engine_of(tmp_path, size=1)
    probe.watch(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert (
        value(instruments.registry, LIBRARY_ERRORS, component="probes", error_type="RuntimeError")
        == 1
    )
