"""The standard library's logging, uvicorn's and Python's warnings, led into the pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from taskscope.logs.exceptions import ExcInfo
from taskscope.logs.receivers import RECEIVERS
from taskscope.once import OncePerMinute

__all__ = ["StdlibRoute"]

_TAKEN: Final = "_taskscope_taken"
_PLAIN_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    _TAKEN,
    "color_message",  # uvicorn's message once more, with the terminal's colours
}
# What ships lines and spans must not make new lines of each of its own steps.
_FEEDBACK: Final = ("elastic_transport", "elasticsearch", "urllib3", "opentelemetry")
# Logs whatever header a caller sent, whole, each time it is malformed.
_MUTED: Final = ("opentelemetry.baggage",)
# What the library says of itself is often said in each request, until somebody has mended it.
_OWN: Final = ("taskscope",)
_KIND_CHARS: Final = 200
_SERVER: Final = "uvicorn"
_SERVER_ACCESS: Final = "uvicorn.access"


def _ignore(_error: BaseException) -> None:
    return None


@dataclass(slots=True)
class _State:
    """How a logger was before us."""

    handlers: list[logging.Handler]
    propagate: bool
    level: int

    @classmethod
    def of(cls, logger: logging.Logger) -> _State:
        return cls(list(logger.handlers), logger.propagate, logger.level)

    def restore(self, logger: logging.Logger) -> None:
        logger.handlers[:] = self.handlers
        logger.propagate = self.propagate
        logger.setLevel(self.level)


class Send(Protocol):
    """Where records are sent: an event with its message, and the message before its arguments were filled in."""

    def __call__(
        self,
        event: dict[str, object],
        *,
        level: str,
        logger: str,
        exc_info: ExcInfo | None,
        created: int,
        name: object,
    ) -> None: ...


class StdlibRoute:
    """All loggers of the standard library lead into `emit`, from `level` up.

    uvicorn's access lines are off: the middleware's own line takes their place. Other handlers stay as they are,
    but uvicorn's are taken off if `printed`, where the pipeline prints the lines itself.
    What the library says of itself is one line a minute for each kind, with how often it was said.
    owner: the pipeline; where a process has several, a request's lines go to the one that its application has.
    failed: told of each exception that was kept from whoever logged. monotonic: seconds of a steady clock.
    """

    def __init__(
        self,
        emit: Send,
        *,
        level: int,
        printed: bool = False,
        owner: object = None,
        failed: Callable[[BaseException], None] = _ignore,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handler = _Handler(emit, level, owner, failed, OncePerMinute(monotonic=monotonic))
        self._level = level
        self._printed = printed
        self._before: dict[str, _State] = {}

    def install(self) -> None:
        """The route leads into the pipeline; a second call repairs what was changed since."""
        root = self._remember("")
        if self._handler not in root.handlers:
            root.addHandler(self._handler)
        root.setLevel(min(root.level or logging.WARNING, self._level))
        server = self._remember(_SERVER)
        server.propagate = True
        if self._printed:
            server.handlers.clear()
        access = self._remember(_SERVER_ACCESS)
        access.handlers.clear()
        access.propagate = False
        logging.captureWarnings(True)

    def remove(self) -> None:
        """The loggers are as they were before the first `install`."""
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._handler)
        for name, state in self._before.items():
            logger = logging.getLogger(name or None)
            state.handlers += [h for h in logger.handlers if name == "" and h not in state.handlers]
            # Another pipeline of this process may have ended since: its handler does not come back.
            ended = {h for h in state.handlers if isinstance(h, _Handler)} - set(logger.handlers)
            state.handlers = [h for h in state.handlers if h not in ended]
            state.restore(logger)
        self._before.clear()

    def follow(self, level: int) -> None:
        """Records below the level do not come any more; all others do."""
        self._level = level
        self._handler.setLevel(level)
        if self._before:
            logging.getLogger().setLevel(min(self._before[""].level or logging.WARNING, level))

    def mend(self) -> None:
        """The route leads into the pipeline, if a library has set up logging since."""
        server, access = logging.getLogger(_SERVER), logging.getLogger(_SERVER_ACCESS)
        if (
            self._handler not in logging.getLogger().handlers
            or not server.propagate
            or access.propagate
            or access.handlers
        ):
            self.install()

    def handle(self, record: logging.LogRecord) -> None:
        """The record is sent on, as from a logger."""
        self._handler.handle(record)

    def _remember(self, name: str) -> logging.Logger:
        logger = logging.getLogger(name or None)
        self._before.setdefault(name, _State.of(logger))
        return logger


class _Handler(logging.Handler):
    """Sends records on. It has no lock of its own: the spool has one, held for the write alone."""

    def __init__(
        self,
        emit: Send,
        level: int,
        owner: object,
        failed: Callable[[BaseException], None],
        once: OncePerMinute,
    ) -> None:
        super().__init__(level)
        self.owner = owner
        self.send = emit
        self._failed = failed
        self._once = once

    def createLock(self) -> None:  # noqa: N802 # the standard library's name
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record, str(record.name))
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            self._failed(error)

    def _emit(self, record: logging.LogRecord, name: str) -> None:
        current = RECEIVERS.current()
        if current is not self.owner and current is not None and self.owner is not None:
            return
        if vars(record).get(_TAKEN) == id(self):  # the handler stands at two loggers
            return
        vars(record)[_TAKEN] = id(self)
        muted, feedback, own = _families(name)
        if muted or (feedback and record.levelno < logging.WARNING):
            return
        given = vars(record)
        event: dict[str, object] = {key: given[key] for key in given.keys() - _PLAIN_RECORD}
        event["event"] = message = _message(record)
        exc_info = _exc_info(record)
        if own:
            kind = None if exc_info is None else exc_info[0].__qualname__
            times = self._once.turn((name, message[:_KIND_CHARS], kind))
            if not times:
                return
            if times > 1:
                event["times"] = times
        if record.stack_info:
            event["stack"] = record.stack_info
        self.send(
            event,
            level=_level(record.levelno),
            logger=name,
            exc_info=exc_info,
            created=int(record.created * 1_000_000) * 1000,
            name=record.msg,
        )


@lru_cache(maxsize=1024)
def _families(name: str) -> tuple[bool, bool, bool]:
    """Whether a logger is one that is muted, one that ships lines, one of the library."""
    return _of(name, _MUTED), _of(name, _FEEDBACK), _of(name, _OWN)


def _of(name: str, families: tuple[str, ...]) -> bool:
    return any(name == family or name.startswith(f"{family}.") for family in families)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 # arguments that do not fit the format, or whose text fails
        given = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{given} [its arguments do not fit]"


def _exc_info(record: logging.LogRecord) -> ExcInfo | None:
    if not isinstance(record.exc_info, tuple):
        return None
    kind, error, trace_back = record.exc_info
    return (kind, error, trace_back) if kind is not None and error is not None else None


def _level(number: int) -> str:
    for bound, name in (
        (logging.CRITICAL, "critical"),
        (logging.ERROR, "error"),
        (logging.WARNING, "warning"),
        (logging.INFO, "info"),
    ):
        if number >= bound:
            return name
    return "debug"
