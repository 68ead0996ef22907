"""uvicorn's protocols with a deadline and a bound: who sends a request too slowly, or too long a head, is hung up.

uvicorn's own timer begins anew with each byte, so a client that drips would hold its connection for ever.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from taskscope_taskapi.envelope import failure
from taskscope_taskapi.responding import CROWDED_STATE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn import Config

__all__ = ["Parser", "head_bytes", "protocol_class"]

Parser = Literal["auto", "h11", "httptools"]

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_TAIL: Final = 3
_PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
}


class _Cycle(Protocol):
    response_complete: bool


class _Uvicorn(Protocol):
    """What both of uvicorn's protocols have, and the deadline needs."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: _Cycle | None
    config: Config
    app: ASGIApp
    connections: Sized
    tasks: Sized


def head_bytes(tail: bytes, data: bytes) -> tuple[int, bool]:
    """How many bytes of `data` belong to a request's head, and whether the head ends in it.

    tail: the last bytes that came before; the blank line may lie across the border.
    """
    end = _END_OF_HEAD.search(tail + data)
    return (len(data), False) if end is None else (end.end() - len(tail), True)


def protocol_class(
    parser: Parser, *, header_s: float, header_bytes: int, connections: int
) -> type[asyncio.Protocol]:
    """The class that uvicorn is to make for each connection.

    header_s: from a connection's or request's first moment to the end of its head. header_bytes: of a head.
    connections: with so many open, a request is answered with 503 by the app itself, so that it is counted;
    uvicorn's own `limit_concurrency` answers before anything has seen the request.
    """
    base = _base(parser)
    bounds = {"header_s": header_s, "most_head": header_bytes, "most_open": connections}
    return type(f"Deadlined{base.__name__}", (_Deadlined, base), bounds)


def _base(parser: Parser) -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    if parser == "h11":
        return H11Protocol
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        if parser == "auto":
            return H11Protocol
        raise
    return HttpToolsProtocol


class _Deadlined:
    """Stands before one of uvicorn's protocol classes in the order of resolution."""

    header_s: float
    most_head: int
    most_open: int

    _timer: asyncio.TimerHandle | None = None
    _head: int = 0
    _tail: bytes = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A connection that says nothing is hung up as well."""
        _above(self).connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """The head is measured before the parser sees it, for httptools takes one of any length."""
        if self._is_waiting():
            self._await_head()
            length, whole = head_bytes(self._tail, data)
            self._head += length
            self._tail = b"" if whole else (self._tail + data)[-_TAIL:]
            if self._head > self.most_head:
                self._refuse(431, f"The headers are longer than {self.most_head} bytes.")
                return
        own = cast("_Uvicorn", self)
        is_crowded = max(len(own.connections), len(own.tasks)) > self.most_open
        own.app = _crowded(own.config.loaded_app) if is_crowded else own.config.loaded_app
        _above(self).data_received(data)
        if not self._is_waiting():
            self._head, self._tail = 0, b""
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._stop_timer()
        _above(self).connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What no parser understands is refused in the envelope too."""
        self._refuse(400, msg)

    def _is_waiting(self) -> bool:
        cycle = cast("_Uvicorn", self).cycle
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        if self._timer is None:
            loop = cast("_Uvicorn", self).loop
            self._timer = loop.call_later(self.header_s, self._hang_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        if not self._is_waiting():
            return
        if self._head:
            self._refuse(408, "The request did not come in time.")
        else:
            cast("_Uvicorn", self).transport.close()

    def _refuse(self, status: int, message: str) -> None:
        transport = cast("_Uvicorn", self).transport
        if transport.is_closing():
            return
        body = bytes(failure(status, message).body)
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        transport.close()


def _above(deadlined: _Deadlined) -> Any:
    return super(_Deadlined, deadlined)


def _crowded(app: ASGIApp) -> ASGIApp:
    async def crowded(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})[CROWDED_STATE] = True
        await app(scope, receive, send)

    return crowded
