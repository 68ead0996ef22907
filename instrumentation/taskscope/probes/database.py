"""How many connections SQLAlchemy's pools hold, read when Prometheus asks.

SQLAlchemy is not imported: any engine whose pool counts as its QueuePool does will do. Pools that count nothing
(NullPool, StaticPool) have no limit to come near to, and add 0.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Protocol, runtime_checkable

from taskscope.catalogue.builtin import DB_CONNECTIONS, DB_CONNECTIONS_MAX
from taskscope.instruments import Instruments

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
    """The pool gauges of one process: the sum over all engines that are watched."""

    def __init__(self, instruments: Instruments) -> None:
        self._engines: list[Engine] = []
        self._lock = Lock()
        connections = instruments.gauge(DB_CONNECTIONS)
        connections.follow(lambda: self._sum(_used), **{_STATE: "used"})
        connections.follow(lambda: self._sum(_idle), **{_STATE: "idle"})
        instruments.gauge(DB_CONNECTIONS_MAX).follow(lambda: self._sum(_most))

    def watch(self, engine: Engine) -> None:
        """The engine's pool is part of the gauges from the next scrape on; twice is the same as once."""
        with self._lock:
            if not any(known is engine for known in self._engines):
                self._engines.append(engine)

    def _sum(self, read: Callable[[_CountingPool], float]) -> float:
        # The pool is asked for each time: `engine.dispose()` puts a new one in its place.
        pools = [engine.pool for engine in tuple(self._engines)]
        return float(sum(read(pool) for pool in pools if isinstance(pool, _CountingPool)))


def _used(pool: _CountingPool) -> float:
    return pool.checkedout()


def _idle(pool: _CountingPool) -> float:
    return pool.checkedin()


def _most(pool: _CountingPool) -> float:
    # SQLAlchemy has no public word for it; -1 means that there is no limit.
    overflow = getattr(pool, "_max_overflow", 0)
    return float("inf") if overflow < 0 else pool.size() + overflow
