"""What every span of a service goes through: nothing fails a request, and the server span leaves at its close.

OpenTelemetry's instrumentation ends the server span with the last body, before an exception comes out of the
application. So the ended span is kept back until it is known how the request ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SynchronousMultiSpanProcessor

from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.tracing.corrected import corrected
from taskscope.tracing.passage import Passage, entering

__all__ = ["MOST_HELD", "Guarded"]

MOST_HELD: Final = 1_024
"""So many requests whose server span has ended may be under way; of more the oldest leaves as it is."""

OnError = Callable[[str, BaseException | None], None]


class Guarded(SynchronousMultiSpanProcessor):
    """Span processors whose failures are counted: they run in the midst of a request.

    The server span of a passage that `holds` goes on when it is released; all others do when they end.
    """

    def __init__(self, failed: OnError) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the SDK leaves it untyped
        self._failed = failed
        # Whoever pops a span hands it on: the event loop at a request's close, another thread at the service's end.
        self._held: dict[Passage, ReadableSpan] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        try:
            super().on_start(span, parent_context)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)

    def _on_ending(self, span: Span) -> None:
        try:
            super()._on_ending(span)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)

    def on_end(self, span: ReadableSpan) -> None:
        try:
            if self._hold(span):
                return
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)
        self._forward(span)

    def release(self, passage: Passage, request: RequestContext, ended: Ended) -> bool:
        """Whether the passage's server span was held; it has left, corrected if that could be done."""
        span = self._held.pop(passage, None)
        if span is None:  # it has left, or is another's: that of a service around this one
            return False
        passage.holds = False
        try:
            leaving = corrected(span, request, ended, passage.before)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)
            leaving = span
        self._forward(leaving)
        return True

    def shutdown(self) -> None:
        self._release_all()
        super().shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As OpenTelemetry's; spans that were held have left as they are."""
        self._release_all()
        return super().force_flush(timeout_millis)

    def _hold(self, span: ReadableSpan) -> bool:
        passage = entering.get()
        if passage is None or not passage.holds or passage.span is None:
            return False
        if passage.span.get_span_context() is not span.context:  # a child's
            return False
        if len(self._held) >= MOST_HELD:
            self._release_oldest()
        self._held[passage] = span
        return True

    def _release_oldest(self) -> bool:
        for passage in tuple(self._held):
            span = self._held.pop(passage, None)
            if span is not None:
                self._forward(span)
                return True
        return False

    def _release_all(self) -> None:
        while self._release_oldest():
            pass

    def _forward(self, span: ReadableSpan) -> None:
        try:
            super().on_end(span)
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the request
            self._failed("tracing", error)
