"""The server span of a request that was not sampled but turned out to be worth keeping: it failed or was slow.

Written after the request's end, under the ids that its log lines bear already.
"""

from __future__ import annotations

import traceback
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.tracing.naming import named, words_of
from taskscope.tracing.passage import Passage
from taskscope.tracing.provider import links_of

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = [
    "EXCEPTION",
    "FAILED",
    "LONGEST",
    "error_type",
    "exception_event",
    "late_span",
    "status_of",
    "type_of",
    "worth_keeping",
]

FAILED: Final = frozenset({"server_error", "timeout"})
"""The outcomes that are the service's own fault."""
LONGEST: Final = 2_048
"""So many characters of a text are told."""
EXCEPTION: Final = "exception"
"""The name of an event that tells of an exception, in OpenTelemetry's conventions."""
_LONGEST_STACK: Final = 32_768
_OWN: Final = InstrumentationScope("taskscope", version("taskscope"))


def worth_keeping(ended: Ended, slow_s: float) -> bool:
    """Whether the request failed on the service's side, or took longer than `slow_s` seconds."""
    return ended.outcome in FAILED or ended.seconds > slow_s


def late_span(
    scope: Scope, request: RequestContext, passage: Passage, ended: Ended, resource: Resource
) -> ReadableSpan:
    """The server span of a request that has ended; `passage.sampled` is what its flag tells."""
    end_ns = passage.started_ns + int(ended.seconds * 1e9)
    failure = ended.failure
    failed = ended.status >= 500 or ended.outcome in FAILED
    return ReadableSpan(
        name=named(request),
        context=passage.span_context(),
        parent=passage.parent.context() if passage.parent is not None else None,
        resource=resource,
        attributes=_attributes(scope, request, ended, failed=failed),
        events=() if failure is None else (exception_event(failure, end_ns),),
        links=links_of(passage),
        kind=SpanKind.SERVER,
        status=status_of(failure) if failed else Status(),
        start_time=passage.started_ns,
        end_time=end_ns,
        instrumentation_scope=_OWN,
    )


def error_type(ended: Ended) -> str:
    """The word for what failed: the exception's type, else the status, else the outcome."""
    if ended.failure is not None:
        return type_of(ended.failure)
    return str(ended.status) if ended.status >= 500 else ended.outcome


def status_of(failure: BaseException | None) -> Status:
    """The status of a span whose request failed, by this exception if there was one."""
    if failure is None:
        return Status(StatusCode.ERROR)
    return Status(StatusCode.ERROR, f"{type(failure).__name__}: {failure}"[:LONGEST])


def _attributes(
    scope: Scope, request: RequestContext, ended: Ended, *, failed: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": request.method,
        "url.path": request.path[:LONGEST],
        "url.scheme": scope.get("scheme", "http"),
        "http.response.status_code": ended.status,
        "network.protocol.version": scope.get("http_version", "1.1"),
        **words_of(request),
    }
    if request.method == "_OTHER":
        found["http.request.method_original"] = str(scope.get("method", ""))[:LONGEST]
    if request.route is not None and request.route != UNMATCHED_ROUTE:
        found["http.route"] = request.route
    if request.client_address is not None:
        found["client.address"] = request.client_address
    server = scope.get("server")
    if server:
        found["server.address"] = str(server[0])
        if server[1] is not None:
            found["server.port"] = server[1]
    for name, value in scope.get("headers", ()):
        if name == b"user-agent":
            found["user_agent.original"] = value.decode("latin-1")[:LONGEST]
            break
    if failed or ended.failure is not None:
        found["error.type"] = error_type(ended)
    return found


def exception_event(failure: BaseException, at_ns: int) -> Event:
    """The event that tells of an exception. at_ns: nanoseconds since 1970."""
    stack = "".join(traceback.format_exception(failure))
    return Event(
        EXCEPTION,
        {
            "exception.type": type_of(failure),
            "exception.message": str(failure)[:LONGEST],
            # Its end names what was raised last.
            "exception.stacktrace": stack[-_LONGEST_STACK:],
        },
        timestamp=at_ns,
    )


def type_of(failure: BaseException) -> str:
    """The exception's type by its full name, as OpenTelemetry writes it."""
    kind = type(failure)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
