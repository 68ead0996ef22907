"""OpenTelemetry traces of one service: a provider of our own and exactly one server span per request.

The spans come from opentelemetry-instrumentation-fastapi. Around it stand two thin layers: the outer one hides
from it what must not reach a span and serves the request without a trace if it fails; the inner one
notes the span for log lines and metrics. Read by `wiring`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SynchronousMultiSpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import RequestContext, current_request
from taskscope.export import otlp
from taskscope.route import path_within
from taskscope.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Tracing", "exemplar", "name_span"]

_KEY: Final = "taskscope.passage"
_CLOSE_S: Final = 5.0
_SEMCONV: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"

OnError = Callable[[str, BaseException | None], None]


class Tracing:
    """The provider of one service's spans, and the layers that make them.

    Spans leave the process only when `settings.otlp_endpoint` is set; their ids are in the log lines always.
    """

    def __init__(
        self, *, settings: Settings, service_name: str, service_version: str, failed: OnError
    ) -> None:
        self._settings = settings
        self._failed = failed
        self._closed = False
        self.provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": service_name,
                    "service.version": service_version,
                    "service.instance.id": settings.instance,
                    "deployment.environment.name": settings.environment,
                }
            ),
            sampler=_sampler(settings.trace_ratio),
            active_span_processor=_Guarded(failed),
        )
        if settings.otlp_endpoint is not None:
            exporter = otlp(settings.otlp_endpoint, redact=settings.redact, failed=failed)
            self.provider.add_span_processor(BatchSpanProcessor(exporter))

    def install(self, app: FastAPI, *, excluded: frozenset[str]) -> None:
        """From its start on, `app` makes one server span per request, but for the excluded paths."""
        plain: list[ASGIApp] = []
        build_plain = app.build_middleware_stack

        def remember_plain() -> ASGIApp:
            stack = build_plain()
            # FastAPI's own stack is a ServerErrorMiddleware; the instrumentor takes its `app` and wraps that.
            inner = getattr(stack, "app", None)
            if inner is not None:
                stack.app = _Inside(inner, self._failed)  # type: ignore[attr-defined] # see above
            plain[:] = [stack]
            return stack

        app.build_middleware_stack = remember_plain  # type: ignore[method-assign] # as the instrumentor does
        self._instrument(app)
        build_traced = app.build_middleware_stack

        def guarded() -> ASGIApp:
            traced = build_traced()
            return _Outside(
                traced,
                plain=plain[0],
                excluded=excluded,
                hide_query=self._settings.redact,
                failed=self._failed,
            )

        app.build_middleware_stack = guarded  # type: ignore[method-assign] # as the instrumentor does

    def _instrument(self, app: FastAPI) -> None:
        # Without it the attributes have the names of before 2023; read once, by the first instrumentor.
        os.environ.setdefault(_SEMCONV, "http")
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from starlette.background import BackgroundTask

        patched_before = hasattr(BackgroundTask, "_otel_original_call")
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self.provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )
        original = getattr(BackgroundTask, "_otel_original_call", None)
        if original is not None and not patched_before:
            # The instrumentor traces background tasks by patching their class for the whole process, with
            # the first app's provider: a second app's tasks would land in the first one's traces.
            BackgroundTask.__call__ = original  # type: ignore[method-assign] # gives back what was there
            del BackgroundTask._otel_original_call  # type: ignore[attr-defined] # set by the patch

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Finished spans were exported, or `timeout_s` seconds have passed."""
        if self._closed:
            return
        self._closed = True
        # The exporter retries for longer than a server waits for its shutdown, hence the thread.
        thread = Thread(target=self._shut_down, name="taskscope-tracing-close", daemon=True)
        thread.start()
        thread.join(timeout_s)

    def _shut_down(self) -> None:
        try:
            self.provider.shutdown()
        except Exception as error:  # noqa: BLE001 - closing must not fail the service's shutdown
            self._failed("tracing", error)


def name_span(scope: Scope, request: RequestContext) -> None:
    """The request's span bears the route that the router took, and never a raw path."""
    passage = scope.get(_KEY)
    if not isinstance(passage, _Passage) or not passage.span.is_recording():
        return
    passage.named = True
    method = "HTTP" if request.method == "_OTHER" else request.method
    route = request.known_route()
    if route is None or route == UNMATCHED_ROUTE:
        passage.span.update_name(method)
        return
    passage.span.update_name(f"{method} {route}")
    passage.span.set_attribute("http.route", route)


def exemplar(scope: Scope) -> dict[str, str] | None:
    """The labels that tie an observation to its trace; None where the trace is not sampled."""
    passage = scope.get(_KEY)
    if not isinstance(passage, _Passage):
        return None
    context = passage.span.get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


class _Passage:
    """What the outer layer hides while the instrumentor looks at the scope, and the span it made."""

    __slots__ = ("_app", "_headers", "_query", "entered", "named", "span")

    def __init__(self, scope: Scope, *, hide_query: bool) -> None:
        self._headers = scope["headers"]
        self._query = scope.get("query_string", b"")
        self._app = scope.get("app")
        self.entered = False
        self.named = False
        self.span: trace.Span = trace.INVALID_SPAN
        # Baggage is the caller's text in our telemetry: nothing here needs it.
        if any(name == b"baggage" for name, _ in self._headers):
            scope["headers"] = [pair for pair in self._headers if pair[0] != b"baggage"]
        if hide_query:
            scope["query_string"] = b""
        if scope["type"] == "http":
            # The instrumentor tries all routes to name its span; the router does that again, and then we know.
            scope["app"] = _NO_ROUTES

    def enter(self, scope: Scope) -> None:
        """The scope is as the server made it; the app runs from here on."""
        self.entered = True
        scope["headers"] = self._headers
        scope["query_string"] = self._query
        scope["app"] = self._app


class _NoRoutes:
    """An application as far as the instrumentor looks at it."""

    routes: tuple[()] = ()


_NO_ROUTES: Final = _NoRoutes()


class _Outside:
    """Outside of the instrumentor: if it fails before the app ran, the request is served without a trace."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        plain: ASGIApp,
        excluded: frozenset[str],
        hide_query: bool,
        failed: OnError,
    ) -> None:
        self.app = app
        self._plain = plain
        self._excluded = excluded
        self._hide_query = hide_query
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or path_within(scope) in self._excluded:
            await self._plain(scope, receive, send)
            return
        # FastAPI >= 0.142 traces by itself once a provider is set. It leaves its own app alone when it sees the
        # instrumentor; this key keeps it from giving apps that are mounted below a second server span.
        scope.setdefault("fastapi.telemetry", None)
        passage = _Passage(scope, hide_query=self._hide_query)
        scope[_KEY] = passage

        async def send_once_entered(message: Message) -> None:
            # Before the app ran, only the instrumentor's own error page can come by here.
            if passage.entered:
                await send(message)

        try:
            await self.app(scope, receive, send_once_entered)
        except Exception as error:
            if passage.entered:
                raise
            self._failed("tracing", error)
            passage.enter(scope)
            await self._plain(scope, receive, send)


class _Inside:
    """Inside of the instrumentor: the scope is whole again and the span is known to the request's context."""

    def __init__(self, app: ASGIApp, failed: OnError) -> None:
        self.app = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage = scope.get(_KEY)
        if not isinstance(passage, _Passage) or passage.entered:
            await self.app(scope, receive, send)
            return
        passage.enter(scope)
        try:
            _note_span(passage)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("tracing", error)
        try:
            await self.app(scope, receive, send)
        except BaseException:
            self._name_unanswered(scope, passage)
            raise

    def _name_unanswered(self, scope: Scope, passage: _Passage) -> None:
        request = current_request.get()
        if request is None or passage.named:
            return
        try:
            name_span(scope, request)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("tracing", error)


def _note_span(passage: _Passage) -> None:
    passage.span = trace.get_current_span()
    context = passage.span.get_span_context()
    request = current_request.get()
    if request is not None and context.is_valid:
        request.trace_id = trace.format_trace_id(context.trace_id)
        request.span_id = trace.format_span_id(context.span_id)


def _sampler(ratio: float) -> ParentBased:
    """A caller may say that its trace is not to be kept, but not that it is: a header would cost us any share.

    The share is taken by the trace's id, so services with one ratio keep the same traces.
    """
    own = TraceIdRatioBased(ratio)
    return ParentBased(own, remote_parent_sampled=own)


class _Guarded(SynchronousMultiSpanProcessor):
    """Span processors whose failures are counted: they run in the midst of a request."""

    def __init__(self, failed: OnError) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the SDK leaves it untyped
        self._failed = failed

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        try:
            super().on_start(span, parent_context)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)

    def on_end(self, span: ReadableSpan) -> None:
        try:
            super().on_end(span)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)
