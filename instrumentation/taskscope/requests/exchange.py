"""One HTTP request under way: what was received and sent so far, and what is known of it, in one object.

Read by the outermost layer, which makes one for each request, and follows itself those that are answered in the usual
way; the exchange takes over all others. Everyone else sees the RequestContext that it is.
Most requests are never asked who they are, so what RequestContext promises is made when it is first read.
Whatever fails in here is counted and the request is served all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import Opened, RequestContext
from taskscope.ended import Ended
from taskscope.requests.fields import MAKERS, METHODS, Made
from taskscope.requests.ids import BLOCK, Header, client_id
from taskscope.requests.ids import HEADER as ID
from taskscope.requests.opened import HEADER, LAYER, SCOPE
from taskscope.requests.outcome import GONE, client_left, outcome_of, raised_by
from taskscope.requests.series import Prepared, RequestSeries, exemplify

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from taskscope.requests.layer import Hooks, Layer
    from taskscope.requests.streams import Stream

__all__ = [
    "BODY",
    "SMALL",
    "START",
    "TIMED_EVERY",
    "Exchange",
    "made",
]

TIMED_EVERY: Final = BLOCK
"""Of so many requests the library's own time is taken of one, and counted for all."""

START: Final = "http.response.start"
BODY: Final = "http.response.body"
_FILE: Final = ("http.response.pathsend", "http.response.zerocopysend")
"""Servers that send a file themselves are told so in a message without its bytes."""
SMALL: Final = 65_536
"""A body of more bytes takes its time to be handed over, which is waited for."""
_TYPE: Final = b"content-type"
_EVENTS: Final = b"text/event-stream"
WHOLE: Final = 1
_PARTED: Final = 2
_GONE: Final = 4
_TIMED: Final = 8


class Exchange(RequestContext):
    """A request between its opening and its close.

    state: bits: the last byte was handed over; the body comes in parts; the client has left; the library's own time
    is taken. first_byte_at, ended_at: when the response started, and when its last byte was handed
    to the server, on the clock of `perf_counter`; 0 until then. Background tasks come after it.
    library_s: what the library took of a timed one. stream: what an event stream is counted by.
    excused: the failure of a background task, which is none of the request's.
    """

    state = 0
    status = 0
    body_bytes = 0
    began_at = 0.0
    first_byte_at = 0.0
    ended_at = 0.0
    library_s = 0.0
    stream: Stream | None = None
    excused: BaseException | None = None
    sent_headers: list[Header] | None = None

    def __init__(self, layer: Layer, scope: Scope, header: Header) -> None:
        self.layer = layer
        self.scope = scope
        self.header = header

    def follow(self, receive: Receive, send: Send, began_at: float) -> None:
        """The request began then, and what it receives and sends comes by here from now on."""
        self._receive = receive
        self._send = send
        self.began_at = began_at

    def opened(self, opening: Message, first_byte_at: float) -> None:
        """Its response was opened with this message."""
        self.status = opening["status"]
        self.sent_headers = opening["headers"]
        self.first_byte_at = first_byte_at

    def whole(self, body_bytes: int, ended_at: float) -> None:
        """Its response was handed over in one piece."""
        self.body_bytes = body_bytes
        self.ended_at = ended_at
        self.state |= WHOLE

    def timed(self, library_s: float) -> None:
        """The library's own time is taken of it, and was this much so far."""
        self.state |= _TIMED
        self.library_s = library_s

    def left(self) -> None:
        """The client has left; that does not matter to a response that was handed over."""
        if not self.state & WHOLE:
            self.state |= _GONE

    def id_bytes(self) -> bytes:
        """The request's own id."""
        return self.header[1]

    def asked(self) -> tuple[str, str, str, str | None, str | None]:
        """As RequestContext's, without keeping what is asked for once."""
        scope = self.scope
        method, client = scope["method"], scope.get("client")
        return (
            self.header[1].decode("ascii"),
            method if method in METHODS else "_OTHER",
            scope["path"],
            client_id(scope["headers"]),
            client[0] if client else None,
        )

    def known_route(self) -> str | None:
        """The route, if the router has matched by now; None for what no route answers."""
        if self.route is None and "endpoint" in self.scope:
            try:
                found = self.layer.routes.find(self.scope)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("middleware", error)
                return None
            if found != UNMATCHED_ROUTE:
                self.route = found
        return self.route

    def send(self, message: Message) -> Awaitable[None]:
        """As the server's own; what is sent is counted."""
        kind = message["type"]
        if kind != START:
            return self._send_part(message, kind)
        try:
            self.first_byte_at = perf_counter()
            self.status = message["status"]
            headers: list[Header] = [*message.get("headers", ())]
            self._open_thoroughly(headers)
            message = {**message, "headers": headers}
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.layer.failed("middleware", error)
        return self._send(message)

    def _open_thoroughly(self, headers: list[Header]) -> None:
        if self.state & _GONE:  # it got no answer, whatever the framework makes of that
            self.status = GONE
        self.sent_headers = headers
        if not self._looked_through(headers):
            headers.append(self.header)
        if self.state & _TIMED:
            self.library_s += perf_counter() - self.first_byte_at

    def _looked_through(self, headers: list[Header]) -> bool:
        """Whether the application gave an id of its own; an event stream is open if it is one."""
        own = False
        for name, value in headers:
            if name == ID:
                own = True
            elif name == _TYPE and value.startswith(_EVENTS):
                self._open_stream()
        return own

    def _open_stream(self) -> None:
        streams = self.layer.streams
        if streams is not None and self.stream is None:
            self.state |= _PARTED
            self.stream = streams.open_events(self.known_route() or UNMATCHED_ROUTE)

    async def _send_part(self, message: Message, kind: str) -> None:
        last = kind in (BODY, *_FILE) and not message.get("more_body")
        if not self.state & _PARTED and not (last and kind == BODY and _is_small(message)):
            self.state |= _PARTED
            if client_left(self._receive):
                self.state |= _GONE
                self.status = GONE
        try:
            await self._send(message)
        except OSError:  # the server's word for a client that has left
            self.state |= _GONE
            raise
        try:
            self._count(message, kind)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.layer.failed("middleware", error)
        if last:
            self.ended_at = perf_counter()
            self.state |= WHOLE

    def _count(self, message: Message, kind: str) -> None:
        if kind == BODY:
            body = message.get("body", b"")
            self.body_bytes += len(body)
            if self.stream is not None:
                self.stream.sent_events(body)
        elif kind in _FILE:
            self.body_bytes += _file_bytes(message, self.sent_headers or ())

    def close(self, failure: BaseException | None) -> None:
        """The request is over: its late span, its line and its series are written, each whatever the others do."""
        layer, now = self.layer, perf_counter()
        ended = self._judged(now, failure)
        self.known_route()
        well = layer.told is None or self._tell(ended)
        if layer.series is not None:
            self._measure(layer.series, ended)
            if self.state & _TIMED:
                spent = self.library_s + perf_counter() - now
                layer.series.spent(spent * TIMED_EVERY)
        if well and ended.outcome == "ok" and self.route is not None and ended.status < 400:
            layer.remember(self.scope, self.route, ended.status)

    def _judged(self, now: float, failure: BaseException | None) -> Ended:
        status, complete = self.status, self.state & WHOLE > 0
        size = 0 if self.method == "HEAD" else self.body_bytes
        seconds = (self.ended_at if complete else now) - self.began_at
        try:
            gone = self.state & _GONE > 0
            if complete and failure is not None:
                if failure is self.excused:  # it has a series of its own; the answer was whole
                    failure = None
                elif isinstance(failure, OSError) and raised_by(failure, self._send):
                    gone = True
            if client_left(self._receive):
                gone = True
                status = status if self.state & _PARTED else GONE
            if status == 0:
                unanswered = gone or isinstance(failure, asyncio.CancelledError)
                status = GONE if unanswered else 500
            outcome = outcome_of(status=status, complete=complete, gone=gone, failure=failure)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.layer.failed("middleware", error)
            return Ended(status or 500, "server_error", seconds, failure, size)
        return Ended(status, outcome, seconds, failure, size)

    def _tell(self, ended: Ended) -> bool:
        """Whether the log took its line."""
        hooks = self.layer.hooks
        self._end(hooks, ended)
        if hooks.access_log is not None:
            try:
                hooks.access_log.write(self, ended)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("logs", error)
                return False
        return True

    def _end(self, hooks: Hooks, ended: Ended) -> None:
        if hooks.on_end is not None:
            try:
                hooks.on_end(self.scope, self, ended)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("tracing", error)

    def _measure(self, series: RequestSeries, ended: Ended) -> None:
        seconds, size = ended.seconds, ended.body_bytes
        first_byte_s = self.first_byte_at - self.began_at if self.first_byte_at else seconds
        try:
            if self.stream is not None:
                self.stream.ended(_close_of(ended.outcome))
                seconds = first_byte_s  # how long it lived is another series
            key = (self.method, self.route or UNMATCHED_ROUTE, ended.status, ended.outcome)
            prepared = series.closed(key, seconds, first_byte_s, size)
            if self.sampled:
                self._exemplify(prepared, (seconds, first_byte_s, float(size)))
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.layer.failed("metrics", error)
        finally:
            series.left()

    def _exemplify(self, prepared: Prepared, observed: tuple[float, ...]) -> None:
        exemplar = self.layer.hooks.exemplar
        trace = None if exemplar is None else exemplar(self.scope)
        if trace is not None:
            exemplify(prepared, trace, observed)


for _name, _make in MAKERS.items():
    setattr(Exchange, _name, Made(_name, _make))


def made(opened: Opened) -> RequestContext:
    """What is made of a request that somebody asks for: an Exchange, a bare context should that fail. Never raises."""
    layer, scope, header = opened[LAYER], opened[SCOPE], opened[HEADER]
    try:
        return Exchange(layer, scope, header)
    except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
        layer.failed("middleware", error)
        return RequestContext(request_id=header[1].decode("ascii"), method="_OTHER", path="")


def _is_small(message: Message) -> bool:
    return len(message.get("body", b"")) <= SMALL


def _file_bytes(message: Message, headers: Iterable[Header]) -> int:
    """As many as the message says, else as many as the headers promised."""
    count = message.get("count")
    if isinstance(count, int):
        return count
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _close_of(outcome: str) -> str:
    """How an event stream ended, by how its request did."""
    if outcome in ("disconnected", "cancelled"):
        return "going_away"
    return "normal" if outcome in ("ok", "client_error") else "server_error"
