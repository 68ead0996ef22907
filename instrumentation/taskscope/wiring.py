"""`instrument(app, …)`: the one call that a service makes."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from taskscope.adoption import Aliases, instrumented_again
from taskscope.adoption import aliases as aliases_of
from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    BUILD,
    LOG_DROPPED,
    LOG_LEFT_OUT,
    LOG_LINES,
    SPOOL_LIMIT,
    TRACED,
)
from taskscope.catalogue.groups import GROUPS
from taskscope.errors import InstrumentError
from taskscope.metrics.guests import Registry
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.tally import counting
from taskscope.multiprocess import WorkerStore
from taskscope.redaction import Redaction
from taskscope.requests.middleware import AccessLog, Hooks, RequestMiddleware
from taskscope.scraping.adminport import AdminPort
from taskscope.scraping.answers import Answers
from taskscope.scraping.exposition import Exposition
from taskscope.scraping.logcontrol import LogControl
from taskscope.scraping.scrapes import Scrapes
from taskscope.settings import Settings
from taskscope.telemetry import Telemetry
from taskscope.threads import in_thread

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from taskscope.audit import Audit
    from taskscope.logs import LogPipeline
    from taskscope.tracing import Tracing

__all__ = ["Telemetry", "instrument"]

_log = logging.getLogger(__name__)


def instrument(
    app: Starlette,
    *,
    service_name: str,
    service_version: str,
    catalogue: Catalogue | None = None,
    metrics: bool = True,
    logs: bool = True,
    tracing: bool | Literal["native"] = True,
    settings: Settings | None = None,
    redact: Redaction | None = None,
    registry: Registry | None = None,
    aliases: tuple[str | Aliases, ...] = (),
) -> Telemetry:
    """`app`, of FastAPI or Starlette, is measured, traced and logged from its start on.

    Call it before the app starts; the telemetry is in `app.state.telemetry` too, and a second call gives it back.
    service_name: lower-case words with hyphens between, the catalogue's `service` if there is one.
    catalogue: what the service declares; by default the library's own metrics and all of its groups.
    metrics, logs, tracing: False switches that part off; instruments work all the same.
    tracing: `native` makes the server spans by FastAPI's own telemetry, from FastAPI 0.142 on.
    settings: by default read from the environment.
    redact: what is hidden, in place of what they say. registry: metrics of prometheus_client that the service has
    already, such as its default REGISTRY; they are answered beside the catalogue's.
    aliases: peers whose old metric names stay alive; see `taskscope.adoption.aliases`.
    Raises InstrumentError if the app has started or is none of Starlette's, SettingsError for a wrong environment,
    CatalogueError for a name that is no slug, MultiprocessError for a workers' folder that cannot be used.
    """
    _check(app, tracing)
    known = getattr(app.state, "telemetry", None)
    if isinstance(known, Telemetry):
        said = instrumented_again(known, service_name=service_name, catalogue=catalogue)
        if said:
            _log.warning("%s", said)
        return known
    if app.middleware_stack is not None:
        raise InstrumentError(
            "instrument: this app has started already; call it before the first request and before its lifespan"
        )
    settings = Settings.from_environ(os.environ) if settings is None else settings
    if redact is not None:
        settings = replace(settings, redact=redact)
    service = _Service(service_name, service_version)
    instruments = _instruments(catalogue, settings, service)
    answers = Answers(
        instruments,
        folder=settings.multiprocess_dir,
        registries=() if registry is None else (registry,),
        aliases=[aliases_of(old) if isinstance(old, str) else old for old in aliases],
    )
    pipeline = _start_logs(instruments, settings, service) if logs else None
    try:
        tracer = _start_tracing(app, instruments, settings, service, tracing)
    except BaseException:
        if pipeline is not None:  # logging must not stay redirected by a call that failed
            pipeline.close()
        raise
    hooks = Hooks(
        excluded=frozenset(settings.excluded_paths),
        failed=instruments.failed,
        logs=pipeline,
        instruments=instruments if metrics else None,
        access_log=_access_log(pipeline) if settings.access_log else None,
        **_span_hooks(tracer),
    )
    scrapes = Scrapes(answers.render, instruments) if metrics else None
    audit = _start_audit(instruments, settings, service, pipeline)
    admin = _admin(scrapes, settings, instruments, pipeline)
    own: dict[str, ASGIApp] = {}
    if scrapes is not None and admin is None:
        own[settings.metrics_path] = Exposition(scrapes, token=settings.metrics_token)
    _wrap(app, hooks, own)
    telemetry = Telemetry(
        instruments=instruments,
        settings=settings,
        tracing=tracer,
        logs=pipeline,
        audit=audit,
        admin=admin,
        render=answers.render,
        app=app,
        answers=own,
    )
    app.state.telemetry = telemetry
    _close_at_shutdown(app, telemetry)
    return telemetry


def _check(app: object, tracing: object) -> None:
    if not all(hasattr(app, part) for part in ("state", "build_middleware_stack", "router")):
        raise InstrumentError(
            f"instrument: {type(app).__name__} is no application of FastAPI or Starlette; "
            "pass the app itself, before anything is wrapped around it"
        )
    if tracing not in (True, False, "native"):
        raise InstrumentError(f"instrument: tracing is {tracing!r}; take True, False or 'native'")


class _Service(NamedTuple):
    name: str
    version: str


def _instruments(catalogue: Catalogue | None, settings: Settings, service: _Service) -> Instruments:
    if catalogue is None:
        catalogue = Catalogue(service=service.name, metrics=GROUPS)
    if catalogue.service != service.name:
        raise InstrumentError(
            f"service_name is {service.name!r} and the catalogue is of {catalogue.service!r}; give both one name"
        )
    instruments = _counting(settings, catalogue)
    instruments.gauge(BUILD).set(
        1,
        service_version=service.version,
        taskscope_version=version("taskscope"),
        vcs_ref_head_revision=settings.commit,
        process_runtime_version=platform.python_version(),
    )
    return instruments


def _counting(settings: Settings, catalogue: Catalogue) -> Instruments:
    """The catalogue's instruments, over a file of this worker's own where there are several."""
    if settings.multiprocess_dir is None:
        return Instruments(catalogue)
    early: list[tuple[str, BaseException | None]] = []
    store = WorkerStore(
        settings.multiprocess_dir,
        service=catalogue.service,
        failed=lambda component, error: early.append((component, error)),
    )
    instruments = Instruments(catalogue, store=store)
    store.failed = instruments.failed
    for component, error in early:  # nobody could count them before
        instruments.failed(component, error)
    return instruments


def _start_logs(instruments: Instruments, settings: Settings, service: _Service) -> LogPipeline:
    from taskscope.logs import configure
    from taskscope.logs.pipeline import Counts

    lines = instruments.counter(LOG_LINES)
    count = {
        level: counting(instruments, lines.at((level,))) for level in LOG_LINES.labels[0].values
    }
    dropped = instruments.counter(LOG_DROPPED)
    instruments.gauge(SPOOL_LIMIT).set(settings.spool_max_bytes)
    left_out = instruments.counter(LOG_LEFT_OUT)
    return configure(
        settings=settings,
        service_name=service.name,
        service_version=service.version,
        on_line=Counts(count.__getitem__),
        on_drop=lambda reason, level: dropped.at((reason, level)).inc(),
        on_error=lambda error: instruments.failed("logs", error),
        on_left_out=lambda reason, level, lines: left_out.at((reason, level)).inc(lines),
    )


def _start_audit(
    instruments: Instruments, settings: Settings, service: _Service, pipeline: LogPipeline | None
) -> Audit:
    from taskscope.audit.making import trail

    return trail(
        instruments,
        settings,
        pipeline,
        service_name=service.name,
        service_version=service.version,
    )


def _access_log(pipeline: LogPipeline | None) -> AccessLog | None:
    if pipeline is None:
        return None
    from taskscope.logs.access import AccessLines

    return AccessLines(pipeline)


def _start_tracing(
    app: Starlette,
    instruments: Instruments,
    settings: Settings,
    service: _Service,
    how: bool | Literal["native"],
) -> Tracing | None:
    if not how:
        return None
    from taskscope.tracing import Tracing

    traced = instruments.counter(TRACED)
    tracing = Tracing(
        settings=settings,
        service_name=service.name,
        service_version=service.version,
        failed=instruments.failed,
        counted=lambda decision: counting(instruments, traced.at((decision,))),
        path="native" if how == "native" else "instrumentor",
    )
    tracing.install(app, excluded=frozenset(settings.excluded_paths))
    return tracing


def _span_hooks(tracing: Tracing | None) -> dict[str, Any]:
    if tracing is None:
        return {}
    from taskscope.tracing import exemplar

    return {"on_end": tracing.on_end, "exemplar": exemplar}


def _admin(
    scrapes: Scrapes | None,
    settings: Settings,
    instruments: Instruments,
    pipeline: LogPipeline | None,
) -> AdminPort | None:
    if scrapes is None or settings.metrics_port is None:
        return None
    upkeep = None if pipeline is None else pipeline.upkeep
    return AdminPort(
        scrapes,
        port=settings.metrics_port,
        path=settings.metrics_path,
        token=settings.metrics_token,
        shared=settings.multiprocess_dir is not None,
        failed=instruments.failed,
        logging=None
        if upkeep is None
        else LogControl(upkeep.verbosity, token=settings.admin_token),
    )


def _wrap(app: Starlette, hooks: Hooks, own: dict[str, ASGIApp]) -> None:
    """The app's whole stack stands inside of ours, its own error pages included. own: what we answer, by path."""
    build = app.build_middleware_stack

    def build_wrapped() -> ASGIApp:
        return RequestMiddleware(build(), routed=app, hooks=hooks, answers=own)

    # `add_middleware` would put us inside of the layer that turns an exception into a 500.
    app.build_middleware_stack = build_wrapped  # type: ignore[method-assign] # the one way to the outside


def _close_at_shutdown(app: Starlette, telemetry: Telemetry) -> None:
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def framed(running: Any) -> AsyncIterator[Any]:
        try:
            async with lifespan(running) as state:
                telemetry.started()
                yield state
        except Exception as error:
            telemetry.ended_by(error)
            raise
        finally:
            telemetry.stopping()
            try:
                await in_thread(telemetry.close, name="taskscope close")
            except RuntimeError:  # no thread can be started any more
                telemetry.close()

    app.router.lifespan_context = framed
