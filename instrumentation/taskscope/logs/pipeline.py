"""From an event to a line in the spool, without ever failing the code that logged it.

Nothing here raises into the caller: what cannot be encoded or written is counted, and says so on standard error at
most once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TextIO, TypeVar

from taskscope.logs.ecs import EcsEncoder, ExcInfo
from taskscope.logs.spool import Spool, Written

__all__ = ["Emit", "LogPipeline", "Route"]

_T = TypeVar("_T")

_QUIET_S: Final = 60.0
_URGENT: Final = frozenset({"warning", "error", "critical"})


class Emit(Protocol):
    """Where a source of events sends them."""

    def __call__(
        self,
        event: Mapping[str, object],
        *,
        level: str,
        logger: str,
        exc_info: ExcInfo | None = None,
        created: int | None = None,
    ) -> None: ...


class Route(Protocol):
    """A source of events that leads into the pipeline from `install` to `remove`."""

    def install(self) -> None: ...

    def remove(self) -> None: ...


class LogPipeline:
    """Turns events into lines and writes them; made by `configure`, ended by `close`.

    on_line: called with the level of every line that was stored. on_drop: with the reason of every line that was
    not: `spool_full`, `write_error` or `encode_error`. on_error: with every exception that was kept from the caller.
    echo: where lines are printed as well, or None. complaints: where the pipeline tells of its own failures.
    """

    def __init__(
        self,
        *,
        encoder: EcsEncoder,
        spool: Spool,
        on_line: Callable[[str], None],
        on_drop: Callable[[str], None],
        on_error: Callable[[BaseException], None],
        echo: TextIO | None = None,
        complaints: TextIO | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spool = spool
        self._encoder = encoder
        self._on_line = on_line
        self._on_drop = on_drop
        self._on_error = on_error
        self._echo = echo
        self._complaints = complaints
        self._monotonic = monotonic
        self._complained = -_QUIET_S
        self._unsaid = 0
        self._routes: list[Route] = []

    def emit(
        self,
        event: Mapping[str, object],
        *,
        level: str,
        logger: str,
        exc_info: ExcInfo | None = None,
        created: int | None = None,
    ) -> None:
        """One event is one line in the spool, or is counted as dropped. Never raises an Exception."""
        try:
            line = self._encoder.line(
                event, level=level, logger=logger, exc_info=exc_info, created=created
            )
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            self._lost("encode_error", error, f"{type(error).__name__}: {error}")
            return
        try:
            written = self.spool.write(line, urgent=level in _URGENT)
        except Exception as error:  # noqa: BLE001 # as above
            self._lost(Written.WRITE_ERROR.value, error, f"{type(error).__name__}: {error}")
            return
        if written is Written.STORED:
            self._tell(self._on_line, level)
        else:
            cause = self.spool.last_error if written is Written.WRITE_ERROR else None
            self._lost(written.value, cause, _why(written, self.spool))
        if self._echo is not None:
            self._print(self._echo, line.decode("utf-8"))

    def add(self, route: Route) -> None:
        """The route leads here until the pipeline is closed."""
        self._routes.append(route)
        route.install()

    def adopt(self) -> None:
        """All routes lead here again: after a server has set up its own logging, or after `close`."""
        self.spool.reopen()
        for route in self._routes:
            route.install()

    def close(self) -> None:
        """Everything logged is on disk, and logging is as it was before `configure`."""
        for route in reversed(self._routes):
            route.remove()
        self.spool.close()

    def _lost(self, reason: str, error: BaseException | None, cause: str) -> None:
        self._tell(self._on_drop, reason)
        if error is not None:
            self._tell(self._on_error, error)
        self._unsaid += 1
        now = self._monotonic()
        if now - self._complained < _QUIET_S or self._complaints is None:
            return
        self._complained = now
        count, self._unsaid = self._unsaid, 0
        self._print(
            self._complaints,
            f"taskscope: {count} log line(s) dropped ({reason}): {cause!s:.300}\n",
        )

    def _tell(self, callback: Callable[[_T], None], value: _T) -> None:
        try:
            callback(value)
        except Exception:  # noqa: BLE001 # a counter that fails must not fail the request
            self._unsaid += 1

    def _print(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except Exception:  # noqa: BLE001 # a closed terminal is no reason to fail
            self._unsaid += 1


def _why(written: Written, spool: Spool) -> str:
    if written is Written.SPOOL_FULL:
        return (
            f"the spool {spool.folder} is full; move its dead letters away, start the shipper or raise "
            "TASKSCOPE_SPOOL_MAX_BYTES"
        )
    if spool.closed:
        return f"the spool {spool.folder} is closed; log before the service's telemetry is closed"
    return f"the spool {spool.folder} cannot be written: {spool.last_error}; free the disk"
