"""From an event to a line in the spool, without ever failing the code that logged it.

Nothing here raises into the caller: what cannot be encoded or written is counted, and says so on standard error at
most once a minute for each reason.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypeVar

from taskscope.identity import Identity
from taskscope.logs.ecs import EcsEncoder, ExcInfo
from taskscope.logs.events import Events
from taskscope.logs.exceptions import exception_of
from taskscope.logs.plain import PlainLines
from taskscope.logs.sampling import AccessSample
from taskscope.logs.spool import ERRORS, USUAL, WARNINGS, Spool, Written
from taskscope.logs.text import visible
from taskscope.once import OncePerMinute

if TYPE_CHECKING:
    from taskscope.logs.upkeep import Upkeep

__all__ = ["Counts", "Emit", "LogPipeline", "Route"]

_T = TypeVar("_T")
_STORED: Final = Written.STORED

_MOST_WITHIN: Final = 3
"""The most lines that are made within one another, where a value's own text is logged while it is asked for."""

_NAME_CHARS: Final = 200
_URGENT: Final = {"warning": WARNINGS, "error": ERRORS, "critical": ERRORS}


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


class Counts:
    """An `on_line` of one callable for each level.

    of: gives it.
    """

    __slots__ = ("of",)

    def __init__(self, of: Callable[[str], Callable[[], None]]) -> None:
        self.of = of

    def __call__(self, level: str) -> None:
        """One line of that level more."""
        self.of(level)()


class Route(Protocol):
    """A source of events that leads into the pipeline from `install` to `remove`."""

    def install(self) -> None: ...

    def remove(self) -> None: ...

    def follow(self, level: int) -> None:
        """From now on what is below the level does not come."""

    def mend(self) -> None:
        """The route leads into the pipeline, whatever was set up over it."""


class LogPipeline:
    """Turns events into lines and writes them; made by `configure`, ended by `close`.

    on_line: called with the level of every line that was stored. on_drop: with the reason and the level of every line
    that was not: `spool_full`, `write_error` or `encode_error`. on_error: with every exception that was kept from the
    caller. on_left_out: with the reason and the level of lines left out on purpose, and how many.
    level: the least level that its sources send. identity: what makes a user's hash of a user's id.
    rate, burst: the most lines of one event in a second in the long run, 0 for no bound, and at once.
    echo: where lines are printed as well, or None. complaints: where the pipeline tells of its own failures.
    """

    def __init__(
        self,
        *,
        encoder: EcsEncoder,
        spool: Spool,
        on_line: Callable[[str], None],
        on_drop: Callable[[str, str], None],
        on_error: Callable[[BaseException], None],
        on_left_out: Callable[[str, str, int], None] | None = None,
        level: int = logging.INFO,
        identity: Identity | None = None,
        echo: TextIO | None = None,
        complaints: TextIO | None = None,
        rate: float = 0.0,
        burst: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spool = spool
        self.encoder = encoder
        self.level = level
        self.identity = identity
        self._on_line = on_line
        self._on_drop = on_drop
        self._on_error = on_error
        self._on_left_out = on_left_out
        self._echo = echo
        self._complaints = complaints
        self._once = OncePerMinute(monotonic=monotonic)
        self._making = threading.local()
        self.routes: list[Route] = []
        self.sample = AccessSample(share=1.0)
        self.upkeep: Upkeep | None = None
        self.lines = PlainLines(encoder, pid=spool.pid)
        self.events = Events(
            per_second=rate, burst=burst, head=self.lines.head, met=self._met, monotonic=monotonic
        )
        _begin_again_in_children(self)

    def log(
        self,
        level: str,
        logger: str,
        event: object,
        message: object,
        fields: dict[str, object],
        created: int | None = None,
    ) -> None:
        """One event is one line in the spool, or is counted as dropped or left out. Never raises an Exception.

        event: what its rate is counted by, the message before its arguments are filled in. fields: kept by nobody
        else; `exc_info` among them is what structlog takes it for. created: nanoseconds, if not now.
        """
        try:
            name = event[:_NAME_CHARS] if type(event) is str else type(event).__name__
            known = self.events.allowed(level, logger, name)
            if known is None:
                self.left_out("rate_limit", level)
                return
            line = None
            if type(message) is str:
                head = known.head if message is name else self.lines.head(level, logger, message)
                line = None if head is None else self.lines.line(head, fields, created)
            if line is not None:
                self.put(line, level)
                return
            exc_info = exception_of(fields.pop("exc_info", None))
            fields["event"] = message
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            self.unencoded(error, level)
            return
        self.emit(fields, level=level, logger=logger, exc_info=exc_info, created=created)

    def record(
        self,
        event: dict[str, object],
        *,
        level: str,
        logger: str,
        exc_info: ExcInfo | None,
        created: int,
        name: object,
    ) -> None:
        """The same for a record of the standard library; name: its message before the arguments."""
        message = event.pop("event", None)
        if exc_info is not None:
            event["exc_info"] = exc_info
        self.log(level, logger, name, message, event, created)

    def _met(self) -> None:
        if self.upkeep is not None:
            self.upkeep.start()

    def forked(self) -> None:
        """In a forked child: its parent's events and process id are the parent's alone."""
        self.events.forget()
        self.lines.forked(os.getpid())

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
        depth: int = getattr(self._making, "depth", 0)
        if depth >= _MOST_WITHIN:
            self.unencoded(RecursionError("a value logs while it is logged"), level)
            return
        self._making.depth = depth + 1
        try:
            line = self.encoder.line(
                event, level=level, logger=logger, exc_info=exc_info, created=created
            )
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            self.unencoded(error, level)
            return
        finally:
            self._making.depth = depth
        self.put(line, level)

    def put(self, line: bytes, level: str) -> None:
        """The line, which ends with its line break, is in the spool, or is counted as dropped. Never raises."""
        try:
            written = self.spool.write(line, urgent=_URGENT.get(level, USUAL))
        except Exception as error:  # noqa: BLE001 # as above
            self._lost(Written.WRITE_ERROR.value, level, error, _said(error))
            return
        if written is _STORED:
            try:
                self._on_line(level)
            except Exception as error:  # noqa: BLE001 # a counter that fails must not fail the request
                self._tell(self._on_error, error)
        else:
            self.unwritten(written, level)
        if self._echo is not None:
            self._print(self._echo, line.decode("utf-8"))

    def counting(self, level: str) -> Callable[[], None]:
        """What counts one line of that level that was stored, for whoever puts many of them into the spool himself."""
        counts = self._on_line
        return counts.of(level) if isinstance(counts, Counts) else partial(counts, level)

    @property
    def direct(self) -> bool:
        """Whether a line needs no more than the spool and its count: it is printed nowhere else."""
        return self._echo is None

    def unwritten(self, written: Written, level: str) -> None:
        """A line that the spool did not take is counted as dropped. Never raises."""
        cause = self.spool.last_error if written is Written.WRITE_ERROR else None
        self._lost(written.value, level, cause, _why(written, self.spool))

    def unencoded(self, error: Exception, level: str = "info") -> None:
        """A line that could not be made is counted as dropped. Never raises."""
        self._lost("encode_error", level, error, _said(error))

    def left_out(self, reason: str, level: str, lines: int = 1) -> None:
        """Lines that were left out on purpose are counted. Never raises."""
        if self._on_left_out is not None:
            with contextlib.suppress(Exception):
                self._on_left_out(reason, level, lines)

    def failed(self, error: BaseException) -> None:
        """An exception that was kept from the caller is told. Never raises."""
        self._tell(self._on_error, error)

    def add(self, route: Route) -> None:
        """The route leads here until the pipeline is closed."""
        self.routes.append(route)
        route.install()

    def adopt(self) -> None:
        """All routes lead here again: after a server has set up its own logging, or after `close`."""
        self.spool.reopen()
        for route in self.routes:
            route.install()
        if self.upkeep is not None:
            self.upkeep.start()
            self.upkeep.listen()

    def close(self) -> None:
        """Everything logged is on disk, and logging is as it was before `configure`."""
        if self.upkeep is not None:
            self.upkeep.close()
        for route in reversed(self.routes):
            route.remove()
        self.spool.close()

    def _lost(self, reason: str, level: str, error: BaseException | None, cause: str) -> None:
        with contextlib.suppress(Exception):  # a counter that fails must not fail the request
            self._on_drop(reason, level)
        if error is not None:
            self._tell(self._on_error, error)
        count = self._once.turn(reason)
        if not count or self._complaints is None:
            return
        self._print(
            self._complaints,
            f"taskscope: {count} log line(s) dropped ({reason}): {self._shown(cause)}\n",
        )

    def _shown(self, cause: str) -> str:
        """An error's text as a line would hold it: without secrets, and on one line."""
        try:
            return visible(self.encoder.words.text(cause[:600]))[:300]
        except Exception:  # noqa: BLE001 # what makes a text safe may be what failed
            return "its cause cannot be told"

    def _tell(self, callback: Callable[[_T], None], value: _T) -> None:
        # As above.
        with contextlib.suppress(Exception):
            callback(value)

    def _print(self, stream: TextIO, text: str) -> None:
        # A closed terminal is no reason to fail.
        with contextlib.suppress(Exception):
            stream.write(text)
            stream.flush()


def _begin_again_in_children(pipeline: LogPipeline) -> None:
    # Hooks cannot be taken back; a weak reference lets a closed pipeline go.
    reference = weakref.ref(pipeline)

    def in_child() -> None:
        found = reference()
        if found is not None:
            found.forked()

    os.register_at_fork(after_in_child=in_child)


def _said(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 # an exception's own text may fail
        return type(error).__name__


def _why(written: Written, spool: Spool) -> str:
    if written is Written.SPOOL_FULL:
        return (
            f"the spool {spool.folder} is full; move its dead letters away, start the shipper or raise "
            "TASKSCOPE_SPOOL_MAX_BYTES"
        )
    if spool.closed:
        return f"the spool {spool.folder} is closed; log before the service's telemetry is closed"
    return f"the spool {spool.folder} cannot be written: {spool.last_error}; free the disk"
