"""WebSocket connections and event streams: how many are open, what goes over them, how long they live, how they end.

Read by the outermost layer, for services whose catalogue declares the group STREAMS. A WebSocket connection is in
these series alone. An event stream is a request as well: it counts there once, with the time until it opened as its
duration, and how long it lived is told here.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final, Literal, NamedTuple

from taskscope.catalogue.groups import (
    STREAM_BYTES,
    STREAM_DURATION,
    STREAM_MESSAGES,
    STREAM_OPEN,
    STREAMS,
)
from taskscope.metrics.children import CounterChild, GaugeChild
from taskscope.metrics.instruments import Instruments
from taskscope.requests.events import EventCounter

__all__ = ["Stream", "StreamSeries", "close_class", "streams_of"]

Protocol = Literal["websocket", "sse"]

_CLASSES: Final = {
    1000: "normal",
    1001: "going_away",
    1002: "protocol_error",
    1003: "protocol_error",
    1005: "normal",  # the peer closed and gave no code: what a browser's close() does
    1006: "abnormal",
    1007: "protocol_error",
    1008: "policy",
    1009: "protocol_error",
    1010: "protocol_error",
    1011: "server_error",
    1012: "server_error",
    1013: "server_error",
    1014: "server_error",
}


def close_class(code: int) -> str:
    """The word for a WebSocket close code, one of CLOSE_CLASSES; a code that means nothing is `abnormal`."""
    if 3000 <= code < 5000:
        return "application"
    return _CLASSES.get(code, "abnormal")


class _Cells(NamedTuple):
    open: GaugeChild
    received: CounterChild
    received_bytes: CounterChild
    sent: CounterChild
    sent_bytes: CounterChild


class StreamSeries:
    """The series of one application's streams."""

    __slots__ = ("_bytes", "_duration", "_messages", "_open", "failed")

    def __init__(self, instruments: Instruments) -> None:
        self._open = instruments.gauge(STREAM_OPEN)
        self._messages = instruments.counter(STREAM_MESSAGES)
        self._bytes = instruments.counter(STREAM_BYTES)
        self._duration = instruments.histogram(STREAM_DURATION)
        self.failed = instruments.failed

    def open(self, route: str, protocol: Protocol) -> Stream:
        """One more stream is open."""
        cells = _Cells(
            self._open.at((route, protocol)),
            self._messages.at((route, protocol, "received")),
            self._bytes.at((route, protocol, "received")),
            self._messages.at((route, protocol, "sent")),
            self._bytes.at((route, protocol, "sent")),
        )
        return Stream(self, route, protocol, cells)

    def open_events(self, route: str) -> Stream:
        """One more event stream is open."""
        stream = self.open(route, "sse")
        stream.events = EventCounter()
        return stream

    def lived(self, route: str, protocol: Protocol, close: str, seconds: float) -> None:
        """A stream of the route is over; one that was refused never was open."""
        self._duration.at((route, protocol, close)).observe(seconds)


class Stream:
    """One open stream. events: counts the events of an event stream."""

    __slots__ = ("_began_at", "_cells", "_protocol", "_route", "_series", "events")

    def __init__(self, series: StreamSeries, route: str, protocol: Protocol, cells: _Cells) -> None:
        self._series = series
        self._route = route
        self._protocol: Protocol = protocol
        self._cells = cells
        self._began_at = perf_counter()
        self.events: EventCounter | None = None
        cells.open.inc()

    def received(self, size: int) -> None:
        """One message of so many bytes came."""
        _count(self._cells.received, self._cells.received_bytes, 1, size)

    def sent(self, size: int) -> None:
        """One message of so many bytes went."""
        _count(self._cells.sent, self._cells.sent_bytes, 1, size)

    def sent_events(self, body: bytes) -> None:
        """A piece of an event stream went, with as many events as it completes."""
        events = 0 if self.events is None else self.events.feed(body)
        _count(self._cells.sent, self._cells.sent_bytes, events, len(body))

    def ended(self, close: str) -> None:
        """The stream is over."""
        self._cells.open.dec()
        seconds = perf_counter() - self._began_at
        self._series.lived(self._route, self._protocol, close, seconds)


def streams_of(instruments: Instruments) -> StreamSeries | None:
    """The series of streams, if the catalogue declares all of them."""
    declared = instruments.catalogue.all_metrics
    return StreamSeries(instruments) if all(metric in declared for metric in STREAMS) else None


def _count(messages: CounterChild, size: CounterChild, number: int, count: int) -> None:
    store = messages.store
    if store is not size.store:
        messages.inc(number)
        size.inc(count)
        return
    with store.lock:
        cells = store.cells
        cells[messages.base] += number
        cells[size.base] += count
