"""Server spans by OpenTelemetry's instrumentation: opentelemetry-instrumentation-fastapi, or -asgi for Starlette."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import TracerProvider

from taskscope.errors import InstrumentError
from taskscope.tracing.native import switched_off

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Scope

    from taskscope.tracing.stacks import Stacks

__all__ = ["by_asgi", "by_fastapi", "shown"]

_SEMCONV: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"


def by_fastapi(app: FastAPI, stacks: Stacks, provider: TracerProvider) -> Callable[[], ASGIApp]:
    """What builds `app`'s stack with the instrumentor around it. Raises InstrumentError if it has one already."""
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        raise InstrumentError(
            "instrument: opentelemetry-instrumentation-fastapi traces this app already; "
            "leave that to instrument(), or call it with tracing=False"
        )
    _choose_names()
    switched_off(app)
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from starlette.background import BackgroundTask

    app.build_middleware_stack = stacks.layered  # type: ignore[method-assign] # as the instrumentor does
    patched_before = hasattr(BackgroundTask, "_otel_original_call")
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )
    original = getattr(BackgroundTask, "_otel_original_call", None)
    if original is not None and not patched_before:
        # The instrumentor traces background tasks by patching their class for the whole process, with
        # the first app's provider: a second app's tasks would land in the first one's traces.
        BackgroundTask.__call__ = original  # type: ignore[method-assign] # gives back what was there
        del BackgroundTask._otel_original_call  # type: ignore[attr-defined] # set by the patch
    return app.build_middleware_stack


def by_asgi(app: Starlette, stacks: Stacks, provider: TracerProvider) -> Callable[[], ASGIApp]:
    """What builds `app`'s stack with OpenTelemetry's ASGI middleware around it."""
    del app
    _choose_names()
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    def build() -> ASGIApp:
        middleware = OpenTelemetryMiddleware(
            stacks.layered(),
            default_span_details=_details,
            tracer_provider=provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )
        return cast("ASGIApp", middleware)

    return build


def shown(*, hide_query: bool) -> Callable[[Scope], Mapping[str, object]]:
    """What the instrumentation sees of a request: no query, if that is to be hidden, and no routes.

    It would try all routes to name its span; the router does that again, and then we know. The headers it may see:
    it reads no trace and no baggage from them, because there is a current span already.
    """
    changed: dict[str, object] = {"app": _NO_ROUTES}
    if hide_query:
        changed["query_string"] = b""
    return lambda _scope: changed


class _NoRoutes:
    """An application as far as the instrumentor looks at it."""

    routes: tuple[()] = ()


_NO_ROUTES: Final = _NoRoutes()


def _choose_names() -> None:
    # Without it the attributes have the names of before 2023; read once, by the first instrumentor.
    os.environ.setdefault(_SEMCONV, "http")


def _details(scope: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from opentelemetry.util.http import sanitize_method

    method = sanitize_method(scope.get("method", ""))
    return "HTTP" if method == "_OTHER" else method, {}
