"""`instrument(app, …)`: the one call that a service makes."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from taskscope.adminport import AdminPort
from taskscope.catalogue import Catalogue, Metric
from taskscope.catalogue.builtin import BUILD, LOG_DROPPED, LOG_LINES
from taskscope.catalogue.groups import GROUPS
from taskscope.errors import InstrumentError
from taskscope.exposition import Exposition, ExpositionMiddleware
from taskscope.instruments import Counter, Gauge, Histogram, Instruments
from taskscope.middleware import AccessLog, Hooks, RequestMiddleware
from taskscope.probes.database import DatabaseProbe, Engine
from taskscope.scrapes import Scrapes
from taskscope.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from taskscope.logs import LogPipeline
    from taskscope.tracing import Tracing

__all__ = ["Telemetry", "instrument"]


class Telemetry:
    """What `instrument` gives back: the service's instruments, and the end of it all in `close`."""

    def __init__(
        self,
        *,
        instruments: Instruments,
        settings: Settings,
        tracing: Tracing | None,
        logs: LogPipeline | None,
        admin: AdminPort | None = None,
    ) -> None:
        self.settings = settings
        self._admin = admin
        self._instruments = instruments
        self._probe = DatabaseProbe(instruments)
        self._tracing = tracing
        self._logs = logs
        self._closed = False

    def started(self) -> None:
        """Log lines lead to the spool, also if the server set up its own logging after `instrument`.

        An app may start again after its end, as in tests that share one; its spans are not exported any more.
        """
        self._closed = False
        if self._admin is not None:
            self._admin.start()
        if self._logs is not None:
            try:
                self._logs.adopt()
            except Exception as error:  # noqa: BLE001 - logging must not fail the service's start
                self._instruments.failed("logs", error)

    def ended_by(self, error: Exception) -> None:
        """Why the service did not start, or did not end well, is a line: the server says it after the close."""
        if self._logs is not None and not self._closed:
            from taskscope.logs import get_logger

            get_logger(__name__).critical("the service's lifespan failed", exc_info=error)

    @property
    def catalogue(self) -> Catalogue:
        """What the service declares."""
        return self._instruments.catalogue

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that holds every series of this service; never prometheus_client's default one."""
        return self._instruments.registry

    @property
    def tracing(self) -> Tracing | None:
        """The service's tracing, whose `provider` makes more spans; None when it is switched off."""
        return self._tracing

    def counter(self, metric: Metric) -> Counter:
        """The counter of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self._instruments.counter(metric)

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self._instruments.gauge(metric)

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self._instruments.histogram(metric)

    def watch_pool(self, engine: Engine) -> None:
        """The connections of a SQLAlchemy (async) engine's pool are among the series from now on."""
        self._probe.watch(engine)

    def close(self) -> None:
        """Spans and log lines are flushed, in bounded time; the second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._admin is not None:
            self._admin.close()
        if self._tracing is not None:
            self._tracing.close()
        if self._logs is not None:
            try:
                self._logs.close()
            except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
                self._instruments.failed("logs", error)


def instrument(
    app: FastAPI,
    *,
    service_name: str,
    service_version: str,
    catalogue: Catalogue | None = None,
    metrics: bool = True,
    logs: bool = True,
    tracing: bool = True,
    settings: Settings | None = None,
    registry: CollectorRegistry | None = None,
) -> Telemetry:
    """`app` is measured, traced and logged from its start on; the telemetry is in `app.state.telemetry` too.

    Call it once, before the app starts. catalogue: what the service declares; by default only the library's
    own metrics. metrics, logs, tracing: False switches that part off; instruments work all the same.
    settings: by default read from the environment. registry: metrics of prometheus_client that the service has
    already, such as its default REGISTRY; they are answered beside the catalogue's.
    Raises InstrumentError if the app is instrumented or has started, SettingsError for a wrong environment.
    """
    _check_fresh(app)
    settings = Settings.from_environ(os.environ) if settings is None else settings
    service = _Service(service_name, service_version)
    instruments = _instruments(catalogue, settings, service)
    pipeline = _start_logs(instruments, settings, service) if logs else None
    try:
        tracer = _start_tracing(app, instruments, settings, service) if tracing else None
    except BaseException:
        if pipeline is not None:  # logging must not stay redirected by a call that failed
            pipeline.close()
        raise
    hooks = Hooks(
        excluded=frozenset(settings.excluded_paths),
        failed=instruments.failed,
        logs=pipeline,
        instruments=instruments if metrics else None,
        access_log=_access_log() if logs and settings.access_log else None,
        **_span_hooks(tracer),
    )
    scrapes = Scrapes(_renderer(instruments, registry), instruments) if metrics else None
    admin = _admin(scrapes, settings, instruments)
    _wrap(app, hooks, settings, scrapes if admin is None else None)
    telemetry = Telemetry(
        instruments=instruments, settings=settings, tracing=tracer, logs=pipeline, admin=admin
    )
    app.state.telemetry = telemetry
    _close_at_shutdown(app, telemetry)
    return telemetry


class _Service(NamedTuple):
    name: str
    version: str


def _check_fresh(app: FastAPI) -> None:
    if isinstance(getattr(app.state, "telemetry", None), Telemetry):
        raise InstrumentError(
            "instrument: this app is instrumented already; call it once, where the app is made"
        )
    if app.middleware_stack is not None:
        raise InstrumentError(
            "instrument: this app has started already; call it before the first request and before its lifespan"
        )


def _instruments(catalogue: Catalogue | None, settings: Settings, service: _Service) -> Instruments:
    if catalogue is None:
        catalogue = Catalogue(service=service.name, metrics=GROUPS)
    if catalogue.service != service.name:
        raise InstrumentError(
            f"service_name is {service.name!r} and the catalogue is of {catalogue.service!r}; give both one name"
        )
    instruments = Instruments(catalogue)
    instruments.gauge(BUILD).set(
        1,
        service_version=service.version,
        taskscope_version=version("taskscope"),
        vcs_ref_head_revision=settings.commit,
        process_runtime_version=platform.python_version(),
    )
    return instruments


def _start_logs(instruments: Instruments, settings: Settings, service: _Service) -> LogPipeline:
    from taskscope.logs import configure

    lines = instruments.counter(LOG_LINES)
    dropped = instruments.counter(LOG_DROPPED)
    return configure(
        settings=settings,
        service_name=service.name,
        service_version=service.version,
        on_line=lambda level: lines.at((level,)).inc(),
        on_drop=lambda reason: dropped.at((reason,)).inc(),
        on_error=lambda error: instruments.failed("logs", error),
    )


def _access_log() -> AccessLog:
    from taskscope.logs import get_logger

    # Bound here: a logger that binds itself anew for each line takes twice as long.
    return get_logger("taskscope.access").bind()


def _start_tracing(
    app: FastAPI, instruments: Instruments, settings: Settings, service: _Service
) -> Tracing:
    from taskscope.tracing import Tracing

    tracing = Tracing(
        settings=settings,
        service_name=service.name,
        service_version=service.version,
        failed=instruments.failed,
    )
    tracing.install(app, excluded=frozenset(settings.excluded_paths))
    return tracing


def _span_hooks(tracing: Tracing | None) -> dict[str, Any]:
    if tracing is None:
        return {}
    from taskscope.tracing import exemplar, name_span

    return {"on_start": name_span, "exemplar": exemplar}


def _renderer(
    instruments: Instruments, registry: CollectorRegistry | None
) -> Callable[[bool], bytes]:
    if registry is not None:
        instruments.registry.register(cast("Collector", registry))

    def render(openmetrics: bool) -> bytes:
        encode, _ = choose_encoder("application/openmetrics-text;version=1.0.0" * openmetrics)
        return encode(instruments.registry)

    return render


def _admin(
    scrapes: Scrapes | None, settings: Settings, instruments: Instruments
) -> AdminPort | None:
    if scrapes is None or settings.metrics_port is None:
        return None
    return AdminPort(
        scrapes,
        port=settings.metrics_port,
        path=settings.metrics_path,
        token=settings.metrics_token,
        shared=settings.multiprocess_dir is not None,
        failed=instruments.failed,
    )


def _wrap(app: FastAPI, hooks: Hooks, settings: Settings, scrapes: Scrapes | None) -> None:
    """The app's whole stack stands inside of ours, its own error pages included."""
    build = app.build_middleware_stack

    def build_wrapped() -> ASGIApp:
        stack: ASGIApp = RequestMiddleware(build(), routed=app, hooks=hooks)
        if scrapes is None:
            return stack
        endpoint = Exposition(scrapes, token=settings.metrics_token)
        return ExpositionMiddleware(stack, path=settings.metrics_path, endpoint=endpoint)

    # `add_middleware` would put us inside of the layer that turns an exception into a 500.
    app.build_middleware_stack = build_wrapped  # type: ignore[method-assign] # the one way to the outside


def _close_at_shutdown(app: FastAPI, telemetry: Telemetry) -> None:
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
            await asyncio.to_thread(telemetry.close)

    app.router.lifespan_context = framed
