"""What a message carries from its publisher to its handler: when it was published, and in which trace."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, cast

from taskscope.context import current_request

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["age_s", "destination", "remote_span", "stamped"]

_TRACEPARENT: Final = "traceparent"
_MILLISECONDS: Final = "timestamp_in_ms"
"""AMQP's own timestamp counts whole seconds; this is the header of RabbitMQ's message-timestamp plugin."""

_LONGEST_TRACEPARENT: Final = 64
_GENERATED: Final = ("amq.gen-", "amq.rabbitmq.reply-to.", "amq.ctag-")


def destination(name: str) -> str:
    """The name as a label: names that the broker made up, a new one for each reply queue, are one."""
    for prefix in _GENERATED:
        if name.startswith(prefix):
            return f"{prefix}*"
    return name


def stamped(message: object, now: float) -> object:
    """A copy of an aio-pika message that tells when it was published and in which trace; what it tells is kept.

    now: seconds since 1970. The message itself and its dict of headers, which may be shared, stay as they are.
    """
    given = cast("Any", message)
    headers = dict(given.headers or {})
    has_trace = _TRACEPARENT in headers
    if not has_trace:
        headers.update(_carrier())
    if given.timestamp is None and _MILLISECONDS not in headers:
        headers[_MILLISECONDS] = int(now * 1000)
    elif len(headers) == len(given.headers or {}):
        return message
    sent = copy(given)
    sent.headers = headers
    if given.timestamp is None:
        sent.timestamp = datetime.fromtimestamp(now, tz=UTC)
    return cast("object", sent)


def age_s(message: object, now: float) -> float | None:
    """Seconds since the message was published, None if it does not say; one from the future has the age 0."""
    given = cast("Any", message)
    milliseconds = _headers(message).get(_MILLISECONDS)
    if isinstance(milliseconds, int) and not isinstance(milliseconds, bool):
        published = milliseconds / 1000
    elif isinstance(given.timestamp, datetime):
        published = given.timestamp.timestamp()
    else:
        return None
    age = now - published
    return max(0.0, age) if isfinite(age) else None


def remote_span(message: object) -> SpanContext | None:
    """The span in which the message was published, None if it names none or not well."""
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    text = _headers(message).get(_TRACEPARENT)
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if not isinstance(text, str) or len(text) > _LONGEST_TRACEPARENT:
        return None
    found = TraceContextTextMapPropagator().extract({_TRACEPARENT: text}, context=Context())
    span = get_current_span(found).get_span_context()
    return span if span.is_valid else None


def _headers(message: object) -> Mapping[str, object]:
    headers = cast("Any", message).headers
    return headers if isinstance(headers, Mapping) else {}


def _carrier() -> dict[str, str]:
    """`traceparent` of the current span, else of the request that is served; nothing without a trace."""
    from opentelemetry.trace import get_current_span

    span = get_current_span().get_span_context()
    if span.is_valid:
        return {_TRACEPARENT: f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"}
    request = current_request.get()
    if request is None or request.trace_id is None or request.span_id is None:
        return {}
    flags = "01" if request.sampled else "00"
    return {_TRACEPARENT: f"00-{request.trace_id}-{request.span_id}-{flags}"}
