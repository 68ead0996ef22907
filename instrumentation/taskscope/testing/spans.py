"""Spans as a test reads them: those that ended inside a block, in the order in which they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from taskscope.errors import InstrumentError

__all__ = ["Traced", "captured_spans"]


class _Provided(Protocol):
    @property
    def provider(self) -> TracerProvider: ...


class Traced(Protocol):
    """What has a tracing; a Telemetry does."""

    @property
    def tracing(self) -> _Provided | None: ...


class _Tap(SpanProcessor):
    """Hands each ended span to all who listen. A provider gets one and keeps it, as it lets none go."""

    def __init__(self) -> None:
        self.listeners: tuple[list[ReadableSpan], ...] = ()

    def on_end(self, span: ReadableSpan) -> None:
        for heard in self.listeners:
            heard.append(span)


_taps: Final[WeakKeyDictionary[TracerProvider, _Tap]] = WeakKeyDictionary()
_lock: Final = Lock()


@contextmanager
def captured_spans(telemetry: Traced) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Inside the block the sampled spans of `telemetry` are kept as they end; the callable gives them so far.

    What is exported otherwise is exported all the same. Raises InstrumentError if tracing is switched off.
    """
    if telemetry.tracing is None:
        raise InstrumentError(
            "captured_spans: this telemetry has no tracing; call instrument() with tracing=True"
        )
    tap = _tap_of(telemetry.tracing.provider)
    heard: list[ReadableSpan] = []
    with _lock:
        tap.listeners = (*tap.listeners, heard)
    try:
        yield lambda: list(heard)
    finally:
        with _lock:
            tap.listeners = tuple([each for each in tap.listeners if each is not heard])


def _tap_of(provider: TracerProvider) -> _Tap:
    with _lock:
        tap = _taps.get(provider)
        if tap is None:
            tap = _Tap()
            provider.add_span_processor(tap)
            _taps[provider] = tap
    return tap
