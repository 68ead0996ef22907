"""Server spans by FastAPI's own telemetry, which FastAPI has from 0.142 on and which costs less."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import TracerProvider

from taskscope.errors import InstrumentError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Scope

    from taskscope.tracing.stacks import Stacks

__all__ = ["by_native", "has_telemetry", "shown", "switched_off"]


def by_native(app: Starlette, stacks: Stacks, provider: TracerProvider) -> Callable[[], ASGIApp]:
    """What builds `app`'s stack with FastAPI's telemetry around it; the app's own is off.

    FastAPI's telemetry is a FastAPI application's outermost part, and no part of its middleware stack. So an
    application without routes, whose middleware stack is the one to trace, stands around that.
    Raises InstrumentError if FastAPI has none, or not as it is known here.
    """
    shell_type = _shell_type(app)
    if not switched_off(app):
        raise InstrumentError(
            "instrument: this FastAPI keeps its telemetry where it cannot be taken over; "
            "call it with tracing=True, or with a FastAPI that taskscope was tested with"
        )

    def build() -> ASGIApp:
        shell = shell_type(
            openapi_url=None,
            telemetry={
                "tracer_provider": provider,
                "metrics": False,
                "logs": False,
                "operation_spans": False,
                "auto_configure": False,
            },
        )
        shell.middleware_stack = stacks.layered()
        return shell  # type: ignore[no-any-return] # FastAPI, of which nothing is imported here

    return build


def shown(*, hide_query: bool) -> Callable[[Scope], Mapping[str, object]]:
    """What FastAPI's telemetry sees of a request: the host it was sent to, and no other header.

    It would read a trace and baggage from the others. It puts the prefix an app is served under before its
    routes; ours are as the app declares them.
    """

    def of(scope: Scope) -> Mapping[str, object]:
        host = [pair for pair in scope["headers"] if pair[0] == b"host"]
        changed: dict[str, object] = {"app": scope.get("app"), "headers": host, "root_path": ""}
        if hide_query:
            changed["query_string"] = b""
        return changed

    return of


def _shell_type(app: Starlette) -> Any:
    try:
        from fastapi import FastAPI
    except ImportError:
        fastapi = None
    else:
        fastapi = FastAPI
    if fastapi is None or not isinstance(app, fastapi):
        raise InstrumentError(
            "instrument: tracing='native' is FastAPI's own, and this app is none of FastAPI's; "
            "call it with tracing=True"
        )
    if not has_telemetry(fastapi):
        raise InstrumentError(
            "instrument: this FastAPI has no telemetry of its own; install fastapi>=0.142, "
            "or call it with tracing=True"
        )
    return fastapi


def switched_off(app: object) -> bool:
    """Whether the telemetry of FastAPI's own that `app` has is off now: it could be found.

    Otherwise it would make a second server span, outside of every decision. Where OpenTelemetry's instrumentor is
    seen it does nothing anyway, but it asks for the global providers with each request, which takes microseconds.
    """
    # Not documented; where it is not as expected, what FastAPI does by itself when it sees the instrumentor holds.
    own = getattr(app, "_telemetry", None)
    if not isinstance(own, dict) or "tracing" not in own:
        return False
    own.update(tracing=False, metrics=False, logs=False)
    return True


def has_telemetry(fastapi: type) -> bool:
    """Whether applications of this class can be told where their telemetry goes."""
    return "telemetry" in inspect.signature(fastapi.__init__).parameters  # type: ignore[misc] # of the class itself
