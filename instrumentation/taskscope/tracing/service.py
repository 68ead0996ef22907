"""The tracing of one service: its provider, the layers around its application, and the end of it all."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from math import inf
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakMethod

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer

from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.settings import Settings
from taskscope.tracing import instrumentor, native
from taskscope.tracing.batches import Batches
from taskscope.tracing.bucket import Bucket
from taskscope.tracing.decider import Decider, Rule
from taskscope.tracing.export import otlp
from taskscope.tracing.guarded import Guarded
from taskscope.tracing.hops import Hops
from taskscope.tracing.ids import Ids
from taskscope.tracing.late import late_span, worth_keeping
from taskscope.tracing.layers import Inside, Outside
from taskscope.tracing.passage import KEY, Passage
from taskscope.tracing.provider import DecidedIds, DecidedSampler, ServerSpans
from taskscope.tracing.stacks import Stacks

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Scope

__all__ = ["Path", "Tracing", "exemplar"]

_CLOSE_S: Final = 5.0

OnError = Callable[[str, BaseException | None], None]
Path = Literal["instrumentor", "native"]


class Tracing:
    """The provider of one service's spans, and the layers that make them.

    Spans leave the process only when an OTLP endpoint is set; their ids are in the log lines always.
    path: what makes the server spans, OpenTelemetry's instrumentation or FastAPI's own.
    counted: what counts a decision when it is called, one of `sampled`, `unsampled`, `late` and `capped`.
    now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        service_name: str,
        service_version: str,
        failed: OnError,
        counted: Callable[[str], Callable[[], None]],
        path: Path = "instrumentor",
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._failed = failed
        self._path: Path = path
        self._closed = False
        self._slow_s = settings.slow_request_s
        self._sampled = counted("sampled")
        self._unsampled = counted("unsampled")
        self._late = counted("late")
        self._capped = counted("capped")
        rule = Rule.of(settings.trace_sampler, settings.trace_ratio)
        ids = Ids()
        self._bucket = Bucket(settings.max_traces_per_second, now)
        self._decider = Decider(
            rule=rule, hops=Hops(settings.trusted_hops), ids=ids, bucket=self._bucket
        )
        self._processors = Guarded(failed)
        self.provider = TracerProvider(
            resource=_resource(settings, service_name, service_version),
            sampler=DecidedSampler(rule.share),
            id_generator=DecidedIds(ids),
            active_span_processor=self._processors,
            shutdown_on_exit=False,  # that may take half a minute
        )
        disabled = isinstance(self.provider.get_tracer("taskscope"), NoOpTracer)
        self._keeps_late = not disabled and settings.trace_sampler != "always_off"
        self._batches = None if disabled else _batches(settings, failed)
        if self._batches is not None:
            self.provider.add_span_processor(self._batches)
        close: WeakMethod[Callable[..., None]] = WeakMethod(self.close)
        atexit.register(lambda: _call(close))

    def install(self, app: Starlette, *, excluded: frozenset[str]) -> None:
        """From its start on, each request to `app` is decided upon, but for those to the excluded paths.

        Raises InstrumentError if the app cannot be traced in the chosen way.
        """
        chosen = instrumentor if self._path == "instrumentor" else native
        by = _maker(app, self._path)
        stacks = Stacks(
            app.build_middleware_stack,
            lambda inner: Inside(
                inner, routed=app, records=by is not instrumentor.by_fastapi, failed=self._failed
            ),
        )
        build = by(app, stacks, ServerSpans(self.provider))
        shown = chosen.shown(hide_query=self._settings.redaction is not None)

        def outer() -> ASGIApp:
            traced = build()
            plain = stacks.plain if stacks.plain is not None else traced
            return Outside(
                traced if by is not native.by_native else plain,
                traced=traced,
                plain=plain,
                excluded=excluded,
                decider=self._decider,
                shown=shown,
                counted=self._count,
                failed=self._failed,
            )

        # `add_middleware` would put us inside of the layer that turns an exception into a 500.
        app.build_middleware_stack = outer  # type: ignore[method-assign] # as the instrumentor does

    def on_end(self, scope: Scope, request: RequestContext, ended: Ended) -> None:
        """The request's decision is counted; one that was passed over has its span now if it failed or was slow.

        Then `request.sampled` is true, and what is written about the request after that may name its trace as kept.
        The span of one that was sampled leaves now.
        """
        passage: Passage | None = scope.get(KEY)
        if passage is None or scope["type"] != "http":
            return
        if passage.holds and self._processors.release(passage, request, ended):
            self._count(passage)
            return
        if not passage.sampled and worth_keeping(ended, self._slow_s) and self._keeps_late:
            # An event stream is open for as long as the client likes: that is not slow.
            endless = getattr(request, "stream", None) is not None
            if not endless or worth_keeping(ended, inf):
                self._keep(scope, request, passage, ended)
                return
        self._count(passage)

    def _keep(self, scope: Scope, request: RequestContext, passage: Passage, ended: Ended) -> None:
        if not self._bucket.take():
            self._capped()
            return
        passage.sampled = True
        try:
            span = late_span(scope, request, passage, ended, self.provider.resource)
        except Exception:
            passage.sampled = False
            raise
        request.sampled = True
        self._late()
        self._processors.on_end(span)

    def _count(self, passage: Passage) -> None:
        if passage.sampled:
            self._sampled()
        elif passage.capped:
            self._capped()
        else:
            self._unsampled()

    def start(self) -> None:
        """Ended spans are exported, also if `close` was called before: an app may start again."""
        self._closed = False
        if self._batches is None:
            return
        try:
            self._batches.start()
        except Exception as error:  # noqa: BLE001 - tracing must not fail the service's start
            self._failed("tracing", error)

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Finished spans were exported, or `timeout_s` seconds have passed; those that end later are dropped."""
        if self._closed:
            return
        self._closed = True
        # The exporter retries for longer than a server waits for its shutdown, hence the thread.
        thread = Thread(target=self._shut_down, name="taskscope-tracing-close", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is ending and starts no more threads
            self._failed("tracing", error)
            return
        thread.join(timeout_s)

    def _shut_down(self) -> None:
        try:
            # Processors of the service's own stay: they work on if the app starts again.
            self.provider.force_flush()
        except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
            self._failed("tracing", error)
        try:
            if self._batches is not None:
                self._batches.shutdown()
        except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
            self._failed("tracing", error)


def exemplar(scope: Scope) -> tuple[str, str] | None:
    """The ids of the request's trace and server span, as hexadecimal digits; None where it is not sampled."""
    passage = scope.get(KEY)
    if not isinstance(passage, Passage) or not passage.sampled:
        return None
    return passage.trace_id, passage.span_id


def _maker(app: Starlette, path: Path) -> Callable[..., Callable[[], ASGIApp]]:
    if path == "native":
        return native.by_native
    try:
        from fastapi import FastAPI
    except ImportError:
        return instrumentor.by_asgi
    return instrumentor.by_fastapi if isinstance(app, FastAPI) else instrumentor.by_asgi


def _resource(settings: Settings, name: str, version: str) -> Resource:
    return Resource.create(
        {
            "service.name": name,
            "service.version": version,
            "service.instance.id": settings.instance,
            "deployment.environment.name": settings.environment,
        }
    )


def _batches(settings: Settings, failed: OnError) -> Batches | None:
    endpoint = settings.traces_endpoint
    if endpoint is None:
        return None
    exporter = otlp(endpoint, redact=settings.redaction, failed=failed)
    return Batches(lambda: BatchSpanProcessor(exporter))


def _call(method: WeakMethod[Callable[..., None]]) -> None:
    found = method()
    if found is not None:
        found()
