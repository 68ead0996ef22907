"""One request on its way through the layers: what was decided about its trace, and the span that came of it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from time import time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from taskscope.context import RequestContext
from taskscope.tracing.traceparent import SAMPLED, Remote

__all__ = ["KEY", "Passage", "entering"]

KEY: Final = "taskscope.passage"
"""Where the passage is in the request's scope."""

# OpenTelemetry tells the key of the current span to nobody, but puts it into a context for everybody.
_CURRENT_SPAN: Final[str] = next(iter(set_span_in_context(INVALID_SPAN, Context())))


class Passage:
    """A request whose trace was decided upon.

    trace_id, span_id: hexadecimal digits, which the server span has if there is one. flags: those of the trace.
    sampled: whether there is a server span. capped: there would be one, but for the cap.
    parent: the caller's span, where it is trusted. link: the caller's span, where it is not.
    started_ns: nanoseconds since 1970. span: the server span, from when it was made.
    request: whose server span it is, while that is under way.
    opening: the server span is being made. entered: the application has been reached.
    holds: the server span is kept back after its end, until the request's. before: how many events it had when an
    exception came out of the application; None if none did, or it had ended.
    """

    __slots__ = (
        "_hidden",
        "before",
        "capped",
        "entered",
        "flags",
        "holds",
        "link",
        "opening",
        "parent",
        "request",
        "sampled",
        "span",
        "span_id",
        "started_ns",
        "trace_id",
    )

    def __init__(
        self,
        trace_id: str,
        span_id: str,
        flags: int,
        sampled: bool,
        capped: bool,
        parent: Remote | None,
        link: Remote | None,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.sampled = sampled
        self.capped = capped
        self.parent = parent
        self.link = link
        self.started_ns = time_ns()
        self.span: Span | None = None
        self.request: RequestContext | None = None
        self.opening = False
        self.entered = False
        self.holds = False
        self.before: int | None = None
        self._hidden: Mapping[str, object] | None = None

    def span_context(self) -> SpanContext:
        """The ids and the decision for OpenTelemetry."""
        flags = self.flags | SAMPLED if self.sampled else self.flags & ~SAMPLED
        return SpanContext(
            int(self.trace_id, 16),
            int(self.span_id, 16),
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=self.parent.context().trace_state if self.parent is not None else None,
        )

    def context(self) -> Context:
        """A context in which the decision is the current span, and nothing else is: no baggage."""
        return Context({_CURRENT_SPAN: _Decided(self)})

    def hide(self, scope: MutableMapping[str, Any], shown: Mapping[str, object]) -> None:
        """The scope shows these values in place of its own until the application is entered."""
        self._hidden = {key: scope[key] for key in shown if key in scope}
        scope.update(shown)

    def enter(self, scope: MutableMapping[str, Any]) -> None:
        """The scope is as the server made it; the app runs from here on."""
        self.entered = True
        if self._hidden is not None:
            scope.update(self._hidden)
            self._hidden = None


class _Decided(NonRecordingSpan):
    """The current span of a request that has no server span (yet): its ids go to children and to other services."""

    def __init__(self, passage: Passage) -> None:
        # Most requests are never asked for it, and making a SpanContext costs more than all else here.
        self._passage = passage

    def get_span_context(self) -> SpanContext:
        return self._passage.span_context()

    def __repr__(self) -> str:
        return f"Decided({self.get_span_context()!r})"


entering: Final[ContextVar[Passage | None]] = ContextVar("taskscope_entering", default=None)
"""The passage whose server span the instrumentation makes, or made; None outside of sampled requests."""
