"""What leaves the process as traces: spans over OTLP, without secrets, with every failure counted.

Runs in the batch processor's own thread, so none of its work is a request's. Read by `tracing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import AttributeValue

from taskscope.redaction import REDACTED, Limits, Redaction, Walk

__all__ = ["SafeExporter", "otlp", "redacted"]

T = TypeVar("T")
_KEY_CHARS: Final = 256
_UNLIMITED: Final = Limits(values=2**31)  # a span has bounds of its own


OnError = Callable[[str, BaseException | None], None]


def otlp(endpoint: str, *, redact: Redaction | None, failed: OnError) -> SpanExporter:
    """An exporter to the OTLP/HTTP receiver of traces at `endpoint`; `OTEL_EXPORTER_OTLP_HEADERS` holds."""
    # Here, at the service's start, because it takes tenths of a second.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return SafeExporter(lambda: OTLPSpanExporter(endpoint=endpoint), redact=redact, failed=failed)


class SafeExporter(SpanExporter):
    """Another exporter, given spans without secrets; it never raises, and what fails is counted.

    make: makes the other one, in each process anew, since connections and locks must not be shared with a
    process that forked. redact: what is hidden, or None. Spans that cannot be redacted are not sent.
    """

    def __init__(
        self, make: Callable[[], SpanExporter], *, redact: Redaction | None, failed: OnError
    ) -> None:
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
            safe = spans if self._redact is None else _all_redacted(spans, self._redact)
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


def _all_redacted(spans: Sequence[ReadableSpan], redaction: Redaction) -> list[ReadableSpan]:
    # All spans of a process have one resource, and a receiver groups them by it.
    resources = {id(span.resource): span for span in spans}
    safe = {key: _resource(span, redaction) for key, span in resources.items()}
    return [redacted(span, redaction, resource=safe[id(span.resource)]) for span in spans]


def redacted(
    span: ReadableSpan, redaction: Redaction, *, resource: Resource | None = None
) -> ReadableSpan:
    """The same span without what `redaction` hides in its name, attributes, events, links, status and resource.

    resource: its resource, if that is redacted already.
    """
    status = span.status
    return ReadableSpan(
        name=redaction.text(span.name),
        context=span.context,
        parent=span.parent,
        resource=_resource(span, redaction) if resource is None else resource,
        attributes=_attributes(span.attributes, redaction),
        events=[
            Event(
                redaction.text(event.name),
                _attributes(event.attributes, redaction),
                event.timestamp,
            )
            for event in span.events
        ],
        links=[Link(link.context, _attributes(link.attributes, redaction)) for link in span.links],
        kind=span.kind,
        status=Status(
            status.status_code,
            redaction.text(status.description) if status.description else None,
        ),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _resource(span: ReadableSpan, redaction: Redaction) -> Resource:
    found = span.resource
    return Resource(_attributes(found.attributes, redaction), found.schema_url)


def _attributes(
    found: Mapping[str, AttributeValue] | None, redaction: Redaction
) -> dict[str, AttributeValue]:
    walk = redaction.walk(limits=_UNLIMITED)
    return {
        redaction.text(key): _value(key, value, redaction, walk)
        for key, value in (found or {}).items()
    }


def _value(key: str, value: AttributeValue, redaction: Redaction, walk: Walk) -> AttributeValue:
    if redaction.secret(key[-_KEY_CHARS:]) and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, (tuple, list)):
        return [walk.value(each) for each in value]
    return walk.value(value)
