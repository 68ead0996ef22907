"""Who waits for a connection of a SQLAlchemy pool: how many now, for how long, and who gave up.

The pool's inner queue is where a caller waits, so its `get` is watched, on the instance, in QueuePool and
AsyncAdaptedQueuePool alike. Pools without a queue (NullPool, StaticPool) make nobody wait.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

from taskscope.metrics.instruments import Counter, Histogram

__all__ = ["PoolQueue", "QueuedPool", "Waiters"]


class PoolQueue(Protocol):
    """The queue of idle connections inside of a pool."""

    get: Callable[..., Any]


@runtime_checkable
class QueuedPool(Protocol):
    """A SQLAlchemy pool whose callers may have to wait. Its queue has no public name."""

    _pool: PoolQueue
    _overflow: int
    _max_overflow: int
    recreate: Callable[[], Any]


class Waiters:
    """The waiting of all pools of one process.

    Each checkout is one value of the wait time, however it ended: 0 where a connection was idle or could be
    opened at once (opening it is not waiting for the pool). A timeout is a caller that the pool refused after
    its `pool_timeout`; one that was cancelled before is none.
    """

    def __init__(
        self,
        wait_time: Histogram,
        timeouts: Counter,
        failed: Callable[[str, BaseException | None], None],
    ) -> None:
        self._wait_time = wait_time.at(())
        self._timeouts = timeouts.at(())
        self._failed = failed
        # One for each caller that waits: a set needs no lock, which a fork could leave taken.
        self.tokens: set[object] = set()

    @property
    def waiting(self) -> int:
        """Callers that wait now."""
        return len(self.tokens)

    def attach(self, pool: object) -> None:
        """The pool's checkouts and its successors' are measured from now on; one without a queue stays as it is."""
        if isinstance(pool, QueuedPool):
            queue = pool._pool
            if not self._watches(queue.get):  # two engines may share a pool
                queue.get = _Watched(self, pool, queue.get).get
                pool.recreate = self._attaching(pool.recreate)

    def _watches(self, get: Callable[..., Any]) -> bool:
        owner = getattr(get, "__self__", None)
        return isinstance(owner, _Watched) and (owner.waiters is self or self._watches(owner.inner))

    def _attaching(self, recreate: Callable[[], Any]) -> Callable[[], Any]:
        # `engine.dispose()` puts the pool that this makes in the place of the old one.
        def attached() -> Any:
            pool = recreate()
            try:
                self.attach(pool)
            except Exception as error:  # noqa: BLE001 - measuring never fails a `dispose`
                self._failed("probes", error)
            return pool

        return attached

    def ended(self, waited_s: float, *, refused: bool) -> None:
        """One checkout is over with the pool. Never raises."""
        try:
            self._wait_time.observe(waited_s)
            if refused:
                self._timeouts.inc()
        except Exception as error:  # noqa: BLE001 - measuring never fails a checkout
            self._failed("probes", error)


class _Watched:
    __slots__ = ("_pool", "inner", "waiters")

    def __init__(self, waiters: Waiters, pool: QueuedPool, get: Callable[..., Any]) -> None:
        self.waiters = waiters
        self._pool = pool
        self.inner = get

    def get(self, block: bool = True, *timeout: float | None) -> Any:
        if not block:
            return self._at_once(timeout)
        token = object()
        self.waiters.tokens.add(token)
        refused = False
        started = perf_counter()
        try:
            return self.inner(block, *timeout)
        except Exception:
            # Where room for a connection came free in the same moment, the pool opens one and refuses nobody.
            refused = self._pool._overflow >= self._pool._max_overflow
            raise
        finally:
            waited_s = perf_counter() - started
            self.waiters.tokens.discard(token)
            self.waiters.ended(waited_s, refused=refused)

    def _at_once(self, timeout: tuple[float | None, ...]) -> Any:
        try:
            return self.inner(False, *timeout)
        finally:
            # A pool that closes its idle connections asks as well, but brings no timeout.
            if timeout:
                self.waiters.ended(0.0, refused=False)
