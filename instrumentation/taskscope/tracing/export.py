"""What leaves the process as traces: spans over OTLP, without secrets, with every failure counted.

Runs in the batch processor's own thread, so none of its work is a request's. Read by `tracing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

from taskscope.redaction import REDACTED, is_secret_key, redact_text

__all__ = ["SafeExporter", "otlp", "redacted"]

T = TypeVar("T")


OnError = Callable[[str, BaseException | None], None]


def otlp(endpoint: str, *, redact: bool, failed: OnError) -> SpanExporter:
    """An exporter to the OTLP/HTTP receiver of traces at `endpoint`; `OTEL_EXPORTER_OTLP_HEADERS` holds."""
    # Here, at the service's start, because it takes tenths of a second.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return SafeExporter(lambda: OTLPSpanExporter(endpoint=endpoint), redact=redact, failed=failed)


class SafeExporter(SpanExporter):
    """Another exporter, given spans without secrets; it never raises, and what fails is counted.

    make: makes the other one, in each process anew, since connections and locks must not be shared with a
    process that forked. Spans that cannot be redacted are not sent.
    """

    def __init__(self, make: Callable[[], SpanExporter], *, redact: bool, failed: OnError) -> None:
        self._make = make
        self._redact = redact
        self._failed = failed
        self._made: tuple[int, SpanExporter] | None = None

    def _exporter(self) -> SpanExporter:
        process = os.getpid()
        if self._made is None or self._made[0] != process:
            self._made = (process, self._make())
        return self._made[1]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """The spans were handed on, or counted as a failure."""
        try:
            safe = [redacted(span) for span in spans] if self._redact else spans
            result = self._exporter().export(safe)
        except Exception as error:  # noqa: BLE001 - the exporter's thread must live on
            self._failed("tracing", error)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._failed("tracing", None)
        return result

    def shutdown(self) -> None:
        """The other exporter is shut down, if there is one; the next export makes another."""
        made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1].shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether the other exporter flushed in time."""
        made = self._made
        return made is None or made[0] != os.getpid() or made[1].force_flush(timeout_millis)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """The same span with the secrets in its attributes, events and status replaced."""
    status = span.status
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[
            Event(event.name, _attributes(event.attributes), event.timestamp)
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(
            status.status_code, redact_text(status.description) if status.description else None
        ),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(found: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
    return {key: _value(key, value) for key, value in (found or {}).items()}


def _value(key: str, value: AttributeValue) -> AttributeValue:
    if is_secret_key(key):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], str):
        return [redact_text(str(each)) for each in value]
    return value
