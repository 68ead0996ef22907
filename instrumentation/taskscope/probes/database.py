"""What a service's database connections do: the pools' connections and waiters, and the statements' time.

SQLAlchemy is not imported: any engine whose pool counts as its QueuePool does will do. Pools that count nothing
(NullPool, StaticPool) have no limit to come near to, and add 0. None of its events is listened to: one listener
makes SQLAlchemy look for all of them: 7 µs more a statement, where all that is done here takes 4.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Protocol, runtime_checkable

from taskscope.catalogue.builtin import (
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    DB_OPERATION_DURATION,
    DB_PENDING,
    DB_TIMEOUTS,
    DB_WAIT_TIME,
)
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.pool import Waiters
from taskscope.probes.statements import StatementTimer

__all__ = ["DatabaseProbe", "Engine"]

_STATE = DB_CONNECTIONS.labels[0].prometheus


class Engine(Protocol):
    """A SQLAlchemy Engine or AsyncEngine."""

    @property
    def pool(self) -> object: ...


@runtime_checkable
class _CountingPool(Protocol):
    def size(self) -> int: ...

    def checkedin(self) -> int: ...

    def checkedout(self) -> int: ...


class DatabaseProbe:
    """The database series of one process: the pool gauges are the sum over all engines that are watched."""

    def __init__(self, instruments: Instruments) -> None:
        self._engines: list[Engine] = []
        self._lock = Lock()
        self._failed = instruments.failed
        self._durations = instruments.histogram(DB_OPERATION_DURATION)
        self._waiters = Waiters(
            instruments.histogram(DB_WAIT_TIME), instruments.counter(DB_TIMEOUTS), self._failed
        )
        connections = instruments.gauge(DB_CONNECTIONS)
        connections.follow(lambda: self._sum(_used), **{_STATE: "used"})
        connections.follow(lambda: self._sum(_idle), **{_STATE: "idle"})
        instruments.gauge(DB_CONNECTIONS_MAX).follow(lambda: self._sum(_most))
        instruments.gauge(DB_PENDING).follow(lambda: float(self._waiters.waiting))

    def watch(self, engine: Engine, *, role: str = "primary", shard: str = "0") -> None:
        """The engine's pool and statements are among the series from now on; the second time changes nothing.

        role, shard: which database it leads to, for the statements' series. An AsyncEngine, its sync engine and
        those made of it by `execution_options` share pool and dialect, and are one. Raises
        MetricError for what is not an engine, and nothing else.
        """
        target = getattr(engine, "sync_engine", engine)
        if not (hasattr(type(target), "pool") or "pool" in getattr(target, "__dict__", ())):
            raise MetricError(
                f"database {role} {shard}: {type(engine).__name__} is not an engine of SQLAlchemy; "
                "pass Engine or AsyncEngine"
            )
        with self._lock:
            if any(_same(known, target) for known in self._engines):
                return
            self._engines.append(target)
        try:
            self._waiters.attach(target.pool)
            dialect = getattr(target, "dialect", None)
            if dialect is not None:
                timer = StatementTimer(self._durations, self._failed, role=role, shard=shard)
                timer.attach(dialect)
        except Exception as error:  # noqa: BLE001 - watching must not fail the service's start
            self._failed("probes", error)

    def _sum(self, read: Callable[[_CountingPool], float]) -> float:
        # The pool is asked for each time: `engine.dispose()` puts a new one in its place.
        # Engines that share one count it once.
        pools = {id(pool): pool for pool in [engine.pool for engine in tuple(self._engines)]}
        return float(sum(read(pool) for pool in pools.values() if isinstance(pool, _CountingPool)))


def _same(known: object, engine: object) -> bool:
    dialect = getattr(known, "dialect", None)
    return known is engine or (dialect is not None and dialect is getattr(engine, "dialect", None))


def _used(pool: _CountingPool) -> float:
    return pool.checkedout()


def _idle(pool: _CountingPool) -> float:
    return pool.checkedin()


def _most(pool: _CountingPool) -> float:
    # SQLAlchemy has no public word for it; -1 means that there is no limit.
    overflow = getattr(pool, "_max_overflow", 0)
    return float("inf") if overflow < 0 else pool.size() + overflow
