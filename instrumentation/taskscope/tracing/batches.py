"""The way of ended spans out of the process: a batch processor that can be started again after its end."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

__all__ = ["Batches"]


class Batches(SpanProcessor):
    """Hands ended spans to a processor that lives from `start`, or from the first span, to `shutdown`.

    Made late, so that a server which forks its workers has no thread before it forks.
    """

    def __init__(self, make: Callable[[], SpanProcessor]) -> None:
        self._make = make
        self._running: SpanProcessor | None = None
        self._open = True
        self._lock = Lock()

    def start(self) -> None:
        """Spans that end from now on are handed on, also after a shutdown."""
        with self._lock:
            self._open = True
            if self._running is None:
                self._running = self._make()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: spans are looked at when they end."""

    def on_end(self, span: ReadableSpan) -> None:
        """The span is on its way if it is sampled; after a shutdown it is dropped."""
        running = self._running
        if running is None and self._open and span.context and span.context.trace_flags.sampled:
            self.start()
            running = self._running
        if running is not None:
            running.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether all spans so far have been handed on in time."""
        running = self._running
        return running is None or running.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Spans so far have been handed on, and no more will be until the next start."""
        with self._lock:
            running, self._running, self._open = self._running, None, False
        if running is not None:
            running.shutdown()
