"""Sets up logging for a process: structlog and the standard library, one chain, into the spool."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

import structlog
from structlog.typing import FilteringBoundLogger

from taskscope.identity import Identity, load_key, new_key
from taskscope.logs.ecs import EcsEncoder, ExcInfo
from taskscope.logs.pipeline import Emit, LogPipeline
from taskscope.logs.spool import Spool
from taskscope.logs.stdlib import StdlibRoute, receiving
from taskscope.settings import Settings

__all__ = ["configure", "get_logger"]

_UNNAMED: Final = "app"
_log: Final = logging.getLogger(__name__)


def configure(
    *,
    settings: Settings,
    service_name: str,
    service_version: str,
    on_line: Callable[[str], None],
    on_drop: Callable[[str, str], None],
    on_error: Callable[[BaseException], None],
    on_left_out: Callable[[str, str, int], None] | None = None,
) -> LogPipeline:
    """Every line that this process logs goes to the spool until the pipeline that is returned is closed.

    on_line: called with the level of every line that was stored. on_drop: with the reason and the level of
    every line that was not. on_error: with every exception that was kept from the caller. on_left_out: with the
    reason and the level of lines left out on purpose, and how many. All may be called from any thread.
    Raises SettingsError if the spool's folder cannot be used.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    pipeline = LogPipeline(
        encoder=EcsEncoder(
            service_name=service_name,
            service_version=service_version,
            environment=settings.environment,
            instance=settings.instance,
            redact=settings.redact,
        ),
        spool=Spool(
            settings.spool,
            max_bytes=settings.spool_max_bytes,
            segment_bytes=settings.segment_bytes,
        ),
        on_line=on_line,
        on_drop=on_drop,
        on_error=on_error,
        on_left_out=on_left_out,
        level=level,
        echo=sys.stderr if settings.log_stderr else None,
        complaints=sys.stderr,
    )
    pipeline.add(_StructlogRoute(pipeline.emit, level=level, failed=pipeline.failed))
    pipeline.add(
        StdlibRoute(
            pipeline.emit,
            level=level,
            printed=settings.log_stderr,
            owner=pipeline,
            failed=pipeline.failed,
        )
    )
    pipeline.identity = Identity(
        service_name=service_name, key=_user_key(settings, on_error=on_error)
    )
    return pipeline


def _user_key(settings: Settings, *, on_error: Callable[[BaseException], None]) -> bytes:
    """The key that was given, or the spool's folder's, or one of this process alone where that cannot be had."""
    if settings.user_key is not None:
        return settings.user_key
    try:
        return load_key(settings.spool)
    except OSError as error:
        with contextlib.suppress(Exception):
            on_error(error)
        _log.warning(
            "the key of user.hash cannot be had: %s; until a restart the hashes are this process's own",
            error,
        )
        return new_key()


def get_logger(name: str = _UNNAMED) -> FilteringBoundLogger:
    """A logger of that name: `get_logger(__name__).info("task created", task_id=…)`.

    It may be made before `configure` is called; each line goes where logging leads at that moment.
    """
    return cast("FilteringBoundLogger", structlog.get_logger(name))


class _StructlogRoute:
    """All structlog loggers lead into `emit`, from `level` up."""

    def __init__(self, emit: Emit, *, level: int, failed: Callable[[BaseException], None]) -> None:
        self._emit = emit
        self._level = level
        self._failed = failed
        self._before: dict[str, Any] | None = None

    def install(self) -> None:
        last = _installed()
        if last is not self:
            # Of another pipeline's settings only those that it found are worth going back to.
            self._before = _configured() if last is None else last._before
        structlog.configure(
            processors=[self._with_context, _as_argument],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            context_class=dict,
            logger_factory=self._sink,
            # Loggers live at module level, longer than one pipeline: none may keep a closed one.
            cache_logger_on_first_use=False,
        )

    def remove(self) -> None:
        # While another pipeline lives, what stands here leads to it: `_Sink` asks for the one that receives.
        last = _installed()
        if last is None or receiving() is not None:
            return
        structlog.reset_defaults()
        if last._before is not None:
            structlog.configure(**last._before)

    def _sink(self, *names: object) -> _Sink:
        return _Sink(self._emit, str(names[0]) if names else _UNNAMED, self._failed)

    def _with_context(
        self, logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        try:
            return structlog.contextvars.merge_contextvars(logger, method, event)
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            self._failed(error)
            return event


def _installed() -> _StructlogRoute | None:
    owner = getattr(structlog.get_config()["logger_factory"], "__self__", None)
    return owner if isinstance(owner, _StructlogRoute) else None


def _configured() -> dict[str, Any] | None:
    return structlog.get_config() if structlog.is_configured() else None


class _Sink:
    """What structlog calls with a finished event: one method per level."""

    __slots__ = ("_emit", "_failed", "_name")

    def __init__(self, emit: Emit, name: str, failed: Callable[[BaseException], None]) -> None:
        self._emit = emit
        self._name = name
        self._failed = failed

    def debug(self, event: dict[str, object]) -> None:
        self._send("debug", event)

    def info(self, event: dict[str, object]) -> None:
        self._send("info", event)

    def warning(self, event: dict[str, object]) -> None:
        self._send("warning", event)

    def error(self, event: dict[str, object]) -> None:
        self._send("error", event)

    def critical(self, event: dict[str, object]) -> None:
        self._send("critical", event)

    notset = debug

    def _send(self, level: str, event: dict[str, object]) -> None:
        try:
            exc_info = _exception(event.pop("exc_info", None))
            handler = receiving()
            emit = self._emit if handler is None else handler.send
            emit(event, level=level, logger=self._name, exc_info=exc_info)
        except Exception as error:  # noqa: BLE001 # as above
            self._failed(error)


def _as_argument(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[MutableMapping[str, Any]], dict[str, Any]]:
    # structlog would spread a dict over keyword arguments, where a key named `self` has no place.
    return (event,), {}


def _exception(found: object) -> ExcInfo | None:
    """What `exc_info=` stands for: an exception, a triple of them, or true for the one being handled."""
    if isinstance(found, BaseException):
        return type(found), found, found.__traceback__
    current = found if isinstance(found, tuple) and len(found) == 3 else None
    if current is None and found:
        current = sys.exc_info()
    if current is None or not isinstance(current[1], BaseException):
        return None
    return cast("ExcInfo", current)
