"""Sets up logging for a process: structlog and the standard library, one chain, into the spool."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from structlog.typing import BindableLogger, Processor

from taskscope.identity import Identity, load_key, new_key
from taskscope.logs.bound import BoundLogger, Named, get_logger, to_spool
from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.pipeline import LogPipeline
from taskscope.logs.receivers import RECEIVERS
from taskscope.logs.sampling import AccessSample
from taskscope.logs.spool import Spool
from taskscope.logs.stdlib import StdlibRoute
from taskscope.logs.uncaught import UncaughtRoute
from taskscope.logs.upkeep import Upkeep
from taskscope.settings import Settings

__all__ = ["configure", "get_logger"]

_LIBRARIES: Final = frozenset({"structlog", "ecs_logging"})
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
            variables=settings.log_locals,
        ),
        spool=Spool(
            settings.spool,
            max_bytes=settings.spool_max_bytes,
            segment_bytes=settings.segment_bytes,
            failed=on_error,
        ),
        on_line=on_line,
        on_drop=on_drop,
        on_error=on_error,
        on_left_out=on_left_out,
        level=level,
        echo=sys.stderr if settings.log_stderr else None,
        complaints=sys.stderr,
        rate=settings.log_rate,
        burst=settings.log_burst,
    )
    pipeline.sample = AccessSample(share=settings.log_sample, slow_s=settings.slow_request_s)
    pipeline.upkeep = Upkeep(
        pipeline,
        level=settings.log_level,
        share=settings.log_sample,
        signal=settings.log_signal,
    )
    pipeline.add(_StructlogRoute(pipeline))
    pipeline.add(
        StdlibRoute(
            pipeline.record,
            level=level,
            printed=settings.log_stderr,
            owner=pipeline,
            failed=pipeline.failed,
        )
    )
    pipeline.add(
        UncaughtRoute(
            pipeline.log,
            receives=lambda: RECEIVERS.current() is pipeline,
            failed=pipeline.failed,
        )
    )
    pipeline.upkeep.listen()
    pipeline.upkeep.verbosity.look()
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


class _StructlogRoute:
    """All structlog loggers lead into the pipeline, after the processors that the service had configured."""

    def __init__(self, pipeline: LogPipeline) -> None:
        self._pipeline = pipeline
        self._before: dict[str, Any] | None = None

    def install(self) -> None:
        RECEIVERS.add(self._pipeline)
        last = _installed()
        if last is not self:
            # Of another pipeline's settings only those that it found are worth going back to.
            self._before = _configured() if last is None else last._before
        structlog.configure(
            processors=[*_own(self._before), to_spool],
            wrapper_class=cast("type[BindableLogger]", BoundLogger),
            context_class=dict,
            logger_factory=self._named,
            # A logger that lives longer than the pipeline finds the next one by itself.
            cache_logger_on_first_use=True,
        )

    def remove(self) -> None:
        RECEIVERS.remove(self._pipeline)
        # While another pipeline lives, what stands here leads to it.
        last = _installed()
        if last is None or RECEIVERS.current() is not None:
            return
        structlog.reset_defaults()
        if last._before is not None:
            structlog.configure(**last._before)

    def follow(self, level: int) -> None:
        """The loggers ask the pipeline for its level."""

    def mend(self) -> None:
        """What a service configures in structlog while it runs is its own choice."""

    def _named(self, *names: object) -> Named:
        return Named(*names[:1])  # type: ignore[arg-type] # whatever the name is, its text is taken


def _installed() -> _StructlogRoute | None:
    owner = getattr(structlog.get_config()["logger_factory"], "__self__", None)
    return owner if isinstance(owner, _StructlogRoute) else None


def _configured() -> dict[str, Any] | None:
    return structlog.get_config() if structlog.is_configured() else None


def _own(configured: dict[str, Any] | None) -> list[Processor]:
    """The service's own processors: those of structlog and of its formatters would do what the encoder does."""
    return [each for each in (configured or {}).get("processors", ()) if not _of_library(each)]


def _of_library(processor: object) -> bool:
    home = getattr(processor, "__module__", None) or type(processor).__module__
    return home.partition(".")[0] in _LIBRARIES
