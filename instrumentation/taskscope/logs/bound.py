"""The logger that a service holds: structlog's interface, and the shortest way from the call to the spool.

It finds the pipeline at each call, so it may be made before there is one, live at module level and outlive several.
What the service configured in structlog, its own processors say, is done all the same; it is only slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, cast

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from taskscope.logs.pipeline import LogPipeline
from taskscope.logs.receivers import RECEIVERS

__all__ = ["BoundLogger", "Named", "get_logger", "to_spool"]

_UNNAMED: Final = "app"
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_ALIASES: Final = {"warn": "warning", "fatal": "critical", "msg": "info"}

# structlog keeps a variable for each name that was ever bound. The name is private: where it is gone, the whole
# context is searched for each line.
_BOUND: Final[dict[str, Any] | None] = getattr(structlog.contextvars, "_CONTEXT_VARS", None)


class _Asked:
    """structlog's configuration by its public way, which makes a dict each time."""

    @property
    def default_processors(self) -> Any:
        return structlog.get_config()["processors"]


# As private, and as much quicker: the public way makes a dict for each line.
_CONFIG: Final[Any] = getattr(getattr(structlog, "_config", None), "_CONFIG", None) or _Asked()


def get_logger(name: str = _UNNAMED) -> FilteringBoundLogger:
    """A logger of that name: `get_logger(__name__).info("task created", task_id=…)`.

    It may be made before `configure` is called; each line goes where logging leads at that moment.
    """
    return cast("FilteringBoundLogger", BoundLogger(Named(name), _CONFIG.default_processors, {}))


class Named:
    """What stands for structlog's wrapped logger: a name, and the methods of one for whoever calls them.

    Those take what a chain of processors ends in: an event, or what a renderer made of it.
    """

    __slots__ = ("name",)

    def __init__(self, name: str = _UNNAMED, *_: object) -> None:
        self.name = str(name)

    def debug(self, event: object = None, **fields: object) -> None:
        _finished("debug", self.name, event, fields)

    def info(self, event: object = None, **fields: object) -> None:
        _finished("info", self.name, event, fields)

    def warning(self, event: object = None, **fields: object) -> None:
        _finished("warning", self.name, event, fields)

    def error(self, event: object = None, **fields: object) -> None:
        _finished("error", self.name, event, fields)

    def critical(self, event: object = None, **fields: object) -> None:
        _finished("critical", self.name, event, fields)

    notset = debug
    warn = warning
    fatal = critical
    msg = info


def to_spool(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[MutableMapping[str, Any]], dict[str, Any]]:
    """The processor at the end of the chain."""
    # structlog would spread a dict over keyword arguments, where a key named `self` has no place.
    return (event,), {}


class BoundLogger(structlog.BoundLoggerBase):
    """structlog's filtering logger, whose level is the pipeline's at the moment of the call. Never raises."""

    def __init__(self, logger: object, processors: Any, context: Any) -> None:
        self._logger = logger
        self._context = context
        # None: those of the moment; a logger that is bound from this one goes on to ask for them.
        self._processors = None if processors is _CONFIG.default_processors else processors  # type: ignore[assignment] # as said
        self.name = getattr(logger, "name", _UNNAMED)

    def log(self, level: int, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """The event is logged at a level of the standard library's numbers."""
        name = "debug"
        for known, number in _LEVELS.items():
            if number <= level:
                name = known
        getattr(self, name)(event, *args, **fields)

    async def alog(self, level: int, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """The same; to log takes less than to ask a thread to do it."""
        self.log(level, event, *args, **fields)

    def exception(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """An error, with the exception that is being handled."""
        fields.setdefault("exc_info", True)
        self.error(event, *args, **fields)  # type: ignore[attr-defined] # made below

    async def aexception(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """The same."""
        self.exception(event, *args, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a line of this level is written now."""
        return level >= self.get_effective_level()

    def get_effective_level(self) -> int:
        """The least level that is written now."""
        pipeline = RECEIVERS.only or RECEIVERS.current()
        return 0 if pipeline is None else pipeline.level

    def _elsewhere(self, method: str, event: Any, fields: dict[str, Any]) -> None:
        """No pipeline is open: the line goes where structlog is configured to lead."""
        chain = structlog.wrap_logger(None, logger_factory_args=(self.name,))
        chosen = chain.bind(**self._context) if self._context else chain
        if not isinstance(chosen, BoundLogger):
            fields.pop("event", None)
            getattr(chosen, method)(event, **fields)


def _method(number: int, name: str) -> tuple[Callable[..., None], Callable[..., Any]]:
    def method(self: BoundLogger, event: Any = None, /, *args: Any, **fields: Any) -> None:
        try:
            pipeline = RECEIVERS.only or RECEIVERS.current()
            if pipeline is not None:
                if number >= pipeline.level:
                    _log(self, pipeline, name, event, args, fields)
                return
        except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
            RECEIVERS.failed(error)
            return
        self._elsewhere(name, event, fields)

    async def amethod(self: BoundLogger, event: Any = None, /, *args: Any, **fields: Any) -> None:
        # The caller has gone on by the time a thread would look for the exception that is being handled.
        method(self, event, *args, **fields)

    method.__name__, amethod.__name__ = name, f"a{name}"
    return method, amethod


for _name, _number in _LEVELS.items():
    _now, _later = _method(_number, _name)
    setattr(BoundLogger, _name, _now)
    setattr(BoundLogger, f"a{_name}", _later)
for _alias, _name in _ALIASES.items():
    setattr(BoundLogger, _alias, getattr(BoundLogger, _name))
    setattr(BoundLogger, f"a{_alias}", getattr(BoundLogger, f"a{_name}"))


def _log(
    logger: BoundLogger,
    pipeline: LogPipeline,
    level: str,
    event: Any,
    args: tuple[Any, ...],
    fields: dict[str, Any],
) -> None:
    if event is None:
        event = fields.pop("event", None)
    message = _filled(event, args) if args else event
    if logger._context:
        fields = {**logger._context, **fields}
    processors: Any = logger._processors or _CONFIG.default_processors
    if processors[0] is to_spool:
        if _BOUND is None or _BOUND:
            _merge(fields)
        pipeline.log(level, logger.name, event, message, fields)
    else:
        _processed(logger, processors, pipeline, level, message, fields)


def _filled(event: Any, args: tuple[Any, ...]) -> Any:
    """The message with its arguments, as structlog fills them in."""
    try:
        return event % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args)
    except Exception:  # noqa: BLE001 # arguments that do not fit the format, or whose text fails
        return f"{event} [its arguments do not fit]"


def _merge(fields: dict[str, Any]) -> None:
    """What the code around has bound to the context is among the fields, where these have none of that name."""
    if _BOUND is None:
        structlog.contextvars.merge_contextvars(None, "", fields)
        return
    for key, variable in list(_BOUND.items()):
        value = variable.get(...)
        if value is not ...:
            name = key[len(structlog.contextvars.STRUCTLOG_KEY_PREFIX) :]
            fields.setdefault(name, value)


def _processed(
    logger: BoundLogger,
    processors: list[Processor],
    pipeline: LogPipeline,
    level: str,
    message: Any,
    fields: dict[str, Any],
) -> None:
    """The event goes through the service's own processors; one that raises is passed over, and counted."""
    event: MutableMapping[str, Any] = {**fields, "event": message}
    _merge_into(event)
    for processor in processors:
        if processor is to_spool:
            break
        try:
            # A renderer takes out of the event what it prints.
            made = processor(logger._logger, level, dict(event))
        except structlog.DropEvent:
            return
        except Exception as error:  # noqa: BLE001 # the rest of the chain goes on
            pipeline.failed(error)
            continue
        if not isinstance(made, MutableMapping):
            break  # that was a renderer: a line is made of what it was given
        event = made
    pipeline.log(level, logger.name, message, event.pop("event", None), dict(event))


def _merge_into(event: MutableMapping[str, Any]) -> None:
    bound: dict[str, Any] = {}
    _merge(bound)
    for name, value in bound.items():
        event.setdefault(name, value)


def _finished(level: str, name: str, event: object, fields: dict[str, object]) -> None:
    """What structlog's own loggers end in."""
    pipeline = RECEIVERS.current()
    if pipeline is None or _LEVELS[level] < pipeline.level:
        return
    try:
        found = _opened(event) if isinstance(event, str | bytes) else event
        if isinstance(found, Mapping):
            fields = {**found, **fields}
            event = fields.pop("event", None)
        _merge_into(fields)
        pipeline.log(level, name, event, event, fields)
    except Exception as error:  # noqa: BLE001 # logging must not fail the work it tells of
        pipeline.failed(error)


def _opened(text: str | bytes) -> object:
    """What a renderer of JSON had rendered, or the text."""
    if text[:1] in ("{", b"{"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(text)
    return text
