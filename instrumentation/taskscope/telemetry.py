"""What `instrument` gives back: the service's instruments, what else it can watch, and the end of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import CollectorRegistry

from taskscope.catalogue import Catalogue, Metric
from taskscope.errors import InstrumentError
from taskscope.metrics.current import offer, withdraw
from taskscope.metrics.instruments import Counter, Gauge, Histogram, Instruments
from taskscope.probes.database import DatabaseProbe, Engine
from taskscope.probes.propagation import LOOPBACK
from taskscope.probes.runtime import Pulse
from taskscope.scraping.adminport import AdminPort
from taskscope.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from taskscope.audit import Audit
    from taskscope.logs import LogPipeline
    from taskscope.probes.cache import Cache, CacheProbe
    from taskscope.probes.httpclient import HttpClient, HttpClientProbe
    from taskscope.probes.jobs import JobsProbe
    from taskscope.tracing import Tracing

__all__ = ["Telemetry"]


class Telemetry:
    """The telemetry of one app: `counter`, `gauge`, `histogram` by metric, `watch_*`, `jobs`, and `close`."""

    def __init__(
        self,
        *,
        instruments: Instruments,
        settings: Settings,
        tracing: Tracing | None,
        logs: LogPipeline | None,
        audit: Audit,
        admin: AdminPort | None = None,
        render: Callable[[bool], bytes],
        app: Starlette,
        answers: dict[str, ASGIApp],
    ) -> None:
        self._app = app
        self._answers = answers
        self.settings = settings
        self.instruments = instruments
        self._database = DatabaseProbe(instruments)
        # A single process is asked at its scrape; other workers' scrapes see what was last written.
        self._pulse = Pulse(instruments, refresh=settings.multiprocess_dir is not None)
        self._cache: CacheProbe | None = None
        self._client: HttpClientProbe | None = None
        self._jobs: JobsProbe | None = None
        self._tracing = tracing
        self._logs = logs
        self._audit = audit
        self._admin = admin
        self._render = render
        self._closed = False
        offer(instruments)

    @property
    def catalogue(self) -> Catalogue:
        """What the service declares."""
        return self.instruments.catalogue

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that holds this process's series; never prometheus_client's default one."""
        return self.instruments.registry

    @property
    def tracing(self) -> Tracing | None:
        """The service's tracing, whose `provider` makes more spans; None when it is switched off."""
        return self._tracing

    @property
    def audit(self) -> Audit:
        """The service's audit trail: `audit.record("user.login", outcome="failure", user=…)`; see `Audit.record`."""
        return self._audit

    def counter(self, metric: Metric) -> Counter:
        """The counter of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self.instruments.counter(metric)

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self.instruments.gauge(metric)

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of `metric`. Raises MetricError if the catalogue does not declare it as one."""
        return self.instruments.histogram(metric)

    def watch_database(self, engine: Engine, *, role: str = "primary", shard: str = "0") -> None:
        """A SQLAlchemy (async) engine's pool and statements are among the series from now on.

        role, shard: which database it leads to; see `DatabaseProbe.watch`. Raises MetricError for what is no engine.
        """
        self._database.watch(engine, role=role, shard=shard)

    def watch_cache(self, client: Cache, *, name: str = "default", ttl_class: str = "none") -> None:
        """A Redis client's commands are among the series from now on; see `CacheProbe.watch`.

        Raises MetricError if the catalogue does not declare the group CACHE.
        """
        if self._cache is None:
            from taskscope.probes.cache import CacheProbe

            self._cache = CacheProbe(self.instruments)
        self._cache.watch(client, name=name, ttl_class=ttl_class)

    def watch_client(self, client: HttpClient, *, propagate_to: tuple[str, ...] = LOOPBACK) -> None:
        """An httpx client's requests are among the series, and carry the trace to the listed hosts or networks.

        See `HttpClientProbe.watch`. Raises MetricError if the catalogue does not declare the group HTTP_CLIENT.
        """
        if self._client is None:
            from taskscope.probes.httpclient import HttpClientProbe

            self._client = HttpClientProbe(self.instruments)
        self._client.watch(client, propagate_to=propagate_to)

    @property
    def jobs(self) -> JobsProbe:
        """What measures queues: `jobs.watch_publisher(exchange)`, `@jobs.handled("queue")`.

        Raises MetricError if the catalogue does not declare the group JOBS.
        """
        if self._jobs is None:
            from taskscope.probes.jobs import JobsProbe

            tracer = None
            if self._tracing is not None:
                tracer = self._tracing.provider.get_tracer("taskscope.jobs")
            self._jobs = JobsProbe(self.instruments, logs=self._logs, tracer=tracer)
        return self._jobs

    def beacon(
        self,
        path: str = "/vitals",
        *,
        pages: Iterable[str] | None = None,
        origins: Iterable[str] | None = None,
    ) -> None:
        """Browsers may report their web vitals to `path`, with the script that is at `path` + `.js`.

        pages: the templates of the pages, by default of the app's own routes. origins: whose pages may report; see
        `WebVitalsBeacon`. Call it before the app starts. Raises MetricError if the catalogue does not declare the
        group WEB_VITALS, InstrumentError if the app has started.
        """
        from taskscope.probes.pages import Pages, templates_of
        from taskscope.probes.webvitals import WebVitalsBeacon

        if self._app.middleware_stack is not None:
            raise InstrumentError(
                "beacon: this app has started already; call it where the app is made"
            )
        chosen = None if pages is None else tuple(pages)
        found: list[Pages] = []

        def route_of(page: str) -> str | None:
            if not found:  # by the first report all routes are there
                found.append(Pages(templates_of(self._app) if chosen is None else chosen))
            return found[0](page)

        beacon = WebVitalsBeacon(self.instruments, route_of, origins=origins)
        self._answers[path] = self._answers[f"{path}.js"] = beacon

    def metrics(self, *, openmetrics: bool = False) -> bytes:
        """What `/metrics` answers, in Prometheus's text format or in OpenMetrics."""
        return self._render(openmetrics)

    def started(self) -> None:
        """The app runs: its event loop is measured, and log lines lead to the spool.

        The server may have set up its own logging after `instrument`. An app may start again after its end, as in
        tests that share one. Raises InstrumentError if `settings.metrics_port` is taken.
        """
        self._closed = False
        offer(self.instruments)
        self._pulse.start()
        if self._tracing is not None:
            self._tracing.start()
        if self._admin is not None:
            self._admin.start()
        self._audit.reopen()
        if self._logs is not None:
            try:
                self._logs.adopt()
            except Exception as error:  # noqa: BLE001 - logging must not fail the service's start
                self.instruments.failed("logs", error)

    def ended_by(self, error: Exception) -> None:
        """Why the service did not start, or did not end well, is a line: the server says it after the close."""
        if self._logs is not None and not self._closed:
            from taskscope.logs import get_logger

            get_logger(__name__).critical("the service's lifespan failed", exc_info=error)

    def stopping(self) -> None:
        """On the app's event loop, before `close`: the loop is not measured any more."""
        self._pulse.stop()

    def close(self) -> None:
        """Spans and log lines are flushed, in bounded time; the second call does nothing."""
        if self._closed:
            return
        self._closed = True
        withdraw(self.instruments)
        if self._admin is not None:
            self._admin.close()
        if self._tracing is not None:
            self._tracing.close()
        self._audit.close()
        if self._logs is not None:
            try:
                self._logs.close()
            except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
                self.instruments.failed("logs", error)
