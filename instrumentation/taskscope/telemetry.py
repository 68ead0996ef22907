"""What `instrument` gives back: the service's instruments, what else it can watch, and the end of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import CollectorRegistry

from taskscope.adminport import AdminPort
from taskscope.catalogue import Catalogue, Metric
from taskscope.current import offer, withdraw
from taskscope.instruments import Counter, Gauge, Histogram, Instruments
from taskscope.probes.database import DatabaseProbe, Engine
from taskscope.probes.runtime import Pulse
from taskscope.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskscope.logs import LogPipeline
    from taskscope.probes.cache import Cache, CacheProbe
    from taskscope.probes.httpclient import HttpClientProbe
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
        admin: AdminPort | None = None,
        render: Callable[[bool], bytes],
    ) -> None:
        self.settings = settings
        self.instruments = instruments
        self._database = DatabaseProbe(instruments)
        self._pulse = Pulse(instruments)
        self._cache: CacheProbe | None = None
        self._client: HttpClientProbe | None = None
        self._jobs: JobsProbe | None = None
        self._tracing = tracing
        self._logs = logs
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
        """A SQLAlchemy (async) engine's pool and statements are among the series from now on."""
        self._database.watch(engine, role=role, shard=shard)

    def watch_cache(self, client: Cache, *, name: str = "default", ttl_class: str = "none") -> None:
        """A Redis client's commands are among the series from now on; see `CacheProbe.watch`.

        Raises MetricError if the catalogue does not declare the group CACHE.
        """
        if self._cache is None:
            from taskscope.probes.cache import CacheProbe

            self._cache = CacheProbe(self.instruments)
        self._cache.watch(client, name=name, ttl_class=ttl_class)

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
        if self._logs is not None:
            try:
                self._logs.close()
            except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
                self.instruments.failed("logs", error)
