"""One WebSocket connection between its opening and its end, as the outermost layer sees it.

Whatever fails in here is counted and the connection is served all the same.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.requests.layer import Layer
from taskscope.requests.streams import Stream, StreamSeries, close_class

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Connection"]

_LOST: Final = 1006


class Connection:
    """Counts what passes. code: the first close code that either side gave; 0 until then."""

    __slots__ = (
        "_began_at",
        "_layer",
        "_receive",
        "_refused",
        "_scope",
        "_send",
        "_series",
        "_stream",
        "code",
    )

    def __init__(
        self, layer: Layer, series: StreamSeries, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._layer = layer
        self._series = series
        self._scope = scope
        self._receive = receive
        self._send = send
        self._stream: Stream | None = None
        self._refused = False
        self._began_at = perf_counter()
        self.code = 0

    async def serve(self, app: ASGIApp) -> None:
        """The connection was served by `app`, and is in the series once."""
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as failure:
            self._close(failure)
            raise
        self._close(None)

    async def receive(self) -> Message:
        """As the server's own; what comes is counted."""
        message = await self._receive()
        try:
            kind = message["type"]
            if kind == "websocket.receive" and self._stream is not None:
                self._stream.received(_size(message))
            elif kind == "websocket.disconnect":
                self.code = self.code or _code_of(message)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the connection
            self._layer.failed("middleware", error)
        return message

    async def send(self, message: Message) -> None:
        """As the server's own; what went is counted."""
        try:
            await self._send(message)
        except OSError as error:  # the server's word for a client that has left
            self.code = self.code or _code_behind(error)
            raise
        try:
            self._note(message)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the connection
            self._layer.failed("middleware", error)

    def _note(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send" and self._stream is not None:
            self._stream.sent(_size(message))
        elif kind == "websocket.accept":
            self._stream = self._series.open(self._route(), "websocket")
        elif kind == "websocket.close":
            self.code = self.code or message.get("code") or 1000
            self._refused = self._stream is None
        elif kind == "websocket.http.response.start":
            self._refused = True

    def _route(self) -> str:
        try:
            return self._layer.routes.find(self._scope)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the connection
            self._layer.failed("middleware", error)
            return UNMATCHED_ROUTE

    def _close(self, failure: BaseException | None) -> None:
        try:
            close = self._class(failure)
            if self._stream is not None:
                self._stream.ended(close)
            else:
                seconds = perf_counter() - self._began_at
                self._series.lived(self._route(), "websocket", close, seconds)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the connection
            self._layer.failed("metrics", error)

    def _class(self, failure: BaseException | None) -> str:
        if self._refused:
            return "refused"
        if self.code:
            return close_class(self.code)
        if isinstance(failure, asyncio.CancelledError):
            return "going_away"
        if failure is not None:
            return "server_error"
        # The application returned and closed nothing: the server hangs up.
        return "abnormal" if self._stream is not None else "refused"


def _code_of(message: Message) -> int:
    """The code that the client gave. uvicorn says 1005 of a lost connection too, but then names no reason."""
    code: int = message.get("code") or 1005
    return _LOST if code == 1005 and "reason" not in message else code


def _size(message: Message) -> int:
    data = message.get("bytes")
    if data is not None:
        return len(data)
    text = message.get("text") or ""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _code_behind(error: OSError) -> int:
    """The close code that a client gave while something was sent to it; uvicorn keeps it in the cause."""
    received = getattr(error.__cause__, "rcvd", None)
    code = getattr(received, "code", None)
    return code if isinstance(code, int) else _LOST
