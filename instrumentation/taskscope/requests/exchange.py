"""One HTTP request under way: what was received and sent so far, and what is known of it, in one object.

Read by the outermost layer, which makes one for each request; everyone else sees the RequestContext that it is.
Most requests are never asked who they are, so what RequestContext promises is made when it is first read.
Whatever fails in here is counted and the request is served all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from contextvars import Token
from time import perf_counter
from types import MethodType
from typing import TYPE_CHECKING, Final

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import RequestContext, current_request
from taskscope.ended import Ended
from taskscope.requests.fields import MAKERS, METHODS, Made
from taskscope.requests.ids import BLOCK, HEADER, client_id
from taskscope.requests.outcome import GONE, client_left, outcome_of, raised_by
from taskscope.requests.series import SETTLE_EVERY, VALUES, Prepared, RequestSeries, exemplify
from taskscope.routing.route import CONTEXT, FASTAPI, MOUNTED

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from taskscope.requests.layer import Layer
    from taskscope.requests.streams import Stream

__all__ = ["TIMED_EVERY", "Exchange"]

TIMED_EVERY: Final = BLOCK
"""Of so many requests the library's own time is taken of one, and counted for all."""

_START: Final = "http.response.start"
_BODY: Final = "http.response.body"
_FILE: Final = ("http.response.pathsend", "http.response.zerocopysend")
"""Servers that send a file themselves are told so in a message without its bytes."""
_EVENTS: Final = b"text/event-stream"
_LENGTH: Final = b"content-length"
_JSON: Final = (b"content-type", b"application/json")
_LEFT: Final = "disconnected"
_SMALL: Final = 65_536
"""A body of more bytes takes its time to be handed over, which is waited for."""

_MANY: Final = SETTLE_EVERY * VALUES

_WHOLE: Final = 1
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

    # What most requests leave as it is costs them nothing.
    status = 0
    body_bytes = 0
    first_byte_at = 0.0
    ended_at = 0.0
    library_s = 0.0
    stream: Stream | None = None
    excused: BaseException | None = None
    sent_headers: list[tuple[bytes, bytes]] | None = None

    def __init__(self, layer: Layer, scope: Scope, receive: Receive, send: Send) -> None:
        self.began_at = perf_counter()
        self.layer = layer
        self.scope = scope
        self.state = 0
        self._receive = receive
        self._send = send
        if layer.times_next:  # looked at before ids are cut: that request is not like others
            layer.times_next = False
            self.state = _TIMED
        try:
            self._id = layer.ready.pop()
        except IndexError:
            self._id = layer.cut_id()
        if layer.noted is None and layer.series is not None:
            layer.series.opened()
        self._token: Token[RequestContext | None] = current_request.set(self)
        if self.state:
            self.library_s = perf_counter() - self.began_at

    def id_bytes(self) -> bytes:
        """The request's own id."""
        return self._id

    def asked(self) -> tuple[str, str, str, str | None, str | None]:
        """As RequestContext's, without keeping what is asked for once."""
        scope = self.scope
        method, client = scope["method"], scope.get("client")
        return (
            self._id.decode("ascii"),
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

    async def receive(self) -> Message:
        """As the server's own; a client that leaves before the end is noted."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.state & _WHOLE:
            self.state |= _GONE
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """As the server's own; what is sent is counted.

        No coroutine of our own for the two messages of an answer in one piece: it would cost as much as the rest.
        """
        kind = message["type"]
        if kind == _BODY:
            if not self.state & _PARTED and not message.get("more_body"):
                size = len(message.get("body", b""))
                if size <= _SMALL:
                    self.body_bytes = size
                    self.ended_at = perf_counter()
                    self.state |= _WHOLE
                    return self._send(message)
        elif kind == _START:
            try:
                self.first_byte_at = perf_counter()
                self.status = status = message["status"]
                headers: list[tuple[bytes, bytes]] = [*message.get("headers", ())]
                # What most answers are: nothing is to be looked for in their headers.
                if (
                    self.state
                    or len(headers) != 2
                    or headers[1] != _JSON
                    or headers[0][0] != _LENGTH
                ):
                    self._open_thoroughly(headers)
                else:
                    headers.append((HEADER, self._id))
                if len(message) == 3:
                    message = {"type": _START, "status": status, "headers": headers}
                else:
                    message = {**message, "headers": headers}
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("middleware", error)
            return self._send(message)
        return self._send_part(message, kind)

    def _open_thoroughly(self, headers: list[tuple[bytes, bytes]]) -> None:
        if self.state & _GONE:  # it got no answer, whatever the framework makes of that
            self.status = GONE
        self.sent_headers = headers
        if not self._looked_through(headers):
            headers.append((HEADER, self._id))
        if self.state & _TIMED:
            self.library_s += perf_counter() - self.first_byte_at

    def _looked_through(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the application gave an id of its own; an event stream is open if it is one."""
        own = False
        for name, value in headers:
            if name == HEADER:
                own = True
            elif name == b"content-type" and value.startswith(_EVENTS):
                self._open_stream()
        return own

    def _open_stream(self) -> None:
        streams = self.layer.streams
        if streams is not None and self.stream is None:
            self.state |= _PARTED
            self.stream = streams.open_events(self.known_route() or UNMATCHED_ROUTE)

    async def _send_part(self, message: Message, kind: str) -> None:
        if not self.state & _PARTED:
            self.state |= _PARTED
            if client_left(self._receive):
                self.state |= _GONE
                self.status = GONE
        last = kind in (_BODY, *_FILE) and not message.get("more_body")
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
            self.state |= _WHOLE

    def _count(self, message: Message, kind: str) -> None:
        if kind == _BODY:
            body = message.get("body", b"")
            self.body_bytes += len(body)
            if self.stream is not None:
                self.stream.sent_events(body)
        elif kind in _FILE:
            self.body_bytes += _file_bytes(message, self.sent_headers or ())

    def close(self, failure: BaseException | None) -> None:
        """The request is over: its late span, its line and its series are written, each whatever the others do."""
        layer, scope, receive, known = self.layer, self.scope, self._receive, None
        try:
            if (
                failure is None
                and self.state == _WHOLE
                and self.status < 400
                # As `client_left`, without the call.
                and not (type(receive) is MethodType and getattr(receive.__self__, _LEFT, False))
                and MOUNTED not in scope
            ):
                route, inner = scope.get("route"), scope.get(FASTAPI)
                known = layer.known.get(id(inner.get(CONTEXT) if inner else route))
                if known is not None and known[1] is not route:
                    known = None
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            layer.failed("middleware", error)
        if known is None:
            self._close_thoroughly(failure)
            return
        # What most requests are, and what costs the least.
        noted = layer.noted
        if noted is None or layer.told is not None:
            self._close_told(known[2])
            return
        values = noted.get((scope["method"], known[2], self.status))
        if values is None:
            self._close_thoroughly(None)
            return
        began = self.began_at
        values += (self.ended_at - began, self.first_byte_at - began, self.body_bytes)
        if len(values) >= _MANY:
            self._settle()
        current_request.reset(self._token)

    def _close_told(self, route: str) -> None:
        """A request that ended well, whose end somebody is told of, or whose series others read."""
        layer, method, began = self.layer, self.scope["method"], self.began_at
        self.route = route
        size = 0 if method == "HEAD" else self.body_bytes
        seconds = self.ended_at - began
        if layer.told is not None:
            self._tell(Ended(self.status, "ok", seconds, None, size))
        series, noted = layer.series, layer.noted
        values = None if noted is None else noted.get((method, route, self.status))
        if values is not None and not self.sampled:
            values += (seconds, self.first_byte_at - began, size)
            if len(values) >= _MANY:
                self._settle()
        elif series is not None:
            key, first_byte_s = (method, route, self.status, "ok"), self.first_byte_at - began
            if self.sampled or not series.ended_well(key, seconds, first_byte_s, size):
                self._measure(series, Ended(self.status, "ok", seconds, None, size))
        current_request.reset(self._token)

    def _settle(self) -> None:
        try:
            if self.layer.series is not None:
                self.layer.series.settle()
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.layer.failed("metrics", error)

    def _close_thoroughly(self, failure: BaseException | None) -> None:
        layer, now = self.layer, perf_counter()
        ended = self._judged(now, failure)
        self.known_route()
        if layer.told is not None:
            self._tell(ended)
        if layer.series is not None:
            self._measure(layer.series, ended)
            if self.state & _TIMED:
                spent = self.library_s + perf_counter() - now
                layer.series.spent(spent * TIMED_EVERY)
        current_request.reset(self._token)

    def _judged(self, now: float, failure: BaseException | None) -> Ended:
        status, complete = self.status, self.state & _WHOLE > 0
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

    def _tell(self, ended: Ended) -> None:
        hooks = self.layer.hooks
        if hooks.on_end is not None:
            try:
                hooks.on_end(self.scope, self, ended)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("tracing", error)
        if hooks.access_log is not None:
            try:
                hooks.access_log.write(self, ended)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self.layer.failed("logs", error)

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


def _file_bytes(message: Message, headers: Iterable[tuple[bytes, bytes]]) -> int:
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
