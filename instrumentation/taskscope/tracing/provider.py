"""The provider of a service's spans: it makes the server span as it was decided, and all others by the same share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from taskscope.tracing.ids import Ids
from taskscope.tracing.passage import Passage, entering

__all__ = ["DecidedIds", "DecidedSampler", "ServerSpans", "links_of", "parent_of"]

_UNNAMED: Final = "WS"


def links_of(passage: Passage) -> tuple[Link, ...]:
    """The link to the span of a caller whose trace was not continued."""
    return () if passage.link is None else (Link(passage.link.context()),)


def parent_of(passage: Passage) -> Context:
    """A context whose current span is the caller's, if its trace is continued."""
    if passage.parent is None:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(passage.parent.context()), Context())


def _opening() -> Passage | None:
    passage = entering.get()
    return passage if passage is not None and passage.opening else None


class DecidedIds(IdGenerator):
    """Ids from the pool; a server span has those that were decided."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def generate_trace_id(self) -> int:
        passage = _opening()
        return self._ids.trace_id() if passage is None else int(passage.trace_id, 16)

    def generate_span_id(self) -> int:
        passage = _opening()
        return self._ids.span_id() if passage is None else int(passage.span_id, 16)

    def is_trace_id_random(self) -> bool:
        return True


class DecidedSampler(Sampler):
    """Takes the server span as it was decided; other spans follow their parent, and begin traces by their share."""

    def __init__(self, share: float) -> None:
        own = TraceIdRatioBased(share)
        # A message or a header from elsewhere must not raise the share.
        self._others = ParentBased(own, remote_parent_sampled=own)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        passage = _opening()
        if passage is None:
            return self._others.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )
        state = passage.parent.context().trace_state if passage.parent is not None else None
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return "DecidedByTheRequest"


class ServerSpans(trace.TracerProvider):
    """The provider as the instrumentation sees it: the first span of a sampled request is its server span."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._provider = provider

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        return _ServerTracer(
            self._provider.get_tracer(
                instrumenting_module_name, instrumenting_library_version, schema_url, attributes
            )
        )


class _ServerTracer(trace.Tracer):
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        passage = entering.get()
        if passage is None or passage.entered or passage.span is not None:
            return self._tracer.start_span(
                name,
                context,
                kind,
                attributes,
                links,
                start_time,
                record_exception,
                set_status_on_exception,
            )
        passage.opening = True
        try:
            passage.span = self._tracer.start_span(
                name or _UNNAMED,
                parent_of(passage),
                SpanKind.SERVER,
                attributes,
                links_of(passage),
                passage.started_ns,
                record_exception,
                set_status_on_exception,
            )
        finally:
            passage.opening = False
        return passage.span

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        # Of the signature only this is known here: what the tracer itself takes and gives.
        return self._tracer.start_as_current_span(*args, **kwargs)
