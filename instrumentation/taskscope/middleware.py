"""The outermost ASGI layer: one request, one observation, one access line.

It stands outside of all other layers, so it sees what the client sees: errors of inner middleware, the
500 that the framework makes of them, and bytes after compression. Whatever fails in here is counted and
the request is served all the same.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    UNMATCHED_ROUTE,
)
from taskscope.context import RequestContext, current_request
from taskscope.instruments import Instruments
from taskscope.route import Routed, path_within, route_template

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AccessLog", "Hooks", "RequestMiddleware", "outcome_of"]

_METHODS: Final = frozenset(REQUEST_DURATION.label("http.request.method").values)
_CLIENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID: Final = b"x-request-id"
_FILE: Final = ("http.response.pathsend", "http.response.zerocopysend")
"""Servers that send a file themselves are told so in one message; its bytes are not seen here."""
_GONE: Final = 499
"""The status of a request whose client left before there was one; nginx's word for it."""


class AccessLog(Protocol):
    """What the access line is written through; a structlog logger is one."""

    def info(self, event: str, **fields: object) -> object: ...

    def error(self, event: str, **fields: object) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the middleware does beside serving; a part that is None is switched off.

    excluded: exact paths that nothing is done for.
    on_start: called when the response starts and the route is known.
    logs: the log pipeline that takes the lines of a request.
    exemplar: the trace to attach to the request's observation, as labels, or None.
    """

    excluded: frozenset[str]
    failed: Callable[[str, BaseException | None], None]
    instruments: Instruments | None = None
    access_log: AccessLog | None = None
    logs: object | None = None
    on_start: Callable[[Scope, RequestContext], None] | None = None
    exemplar: Callable[[Scope], dict[str, str] | None] | None = None


def outcome_of(*, status: int, complete: bool, gone: bool, failure: BaseException | None) -> str:
    """The word for how a request ended, one of OUTCOMES.

    status: as sent, or as it would have been. complete: the last byte was handed to the server.
    gone: the client had left before that, even if the app went on to answer nobody.
    """
    if gone:
        return "disconnected"
    if isinstance(failure, asyncio.CancelledError):
        return "cancelled"
    if status == 504 or isinstance(failure, TimeoutError):
        return "timeout"
    if failure is not None or status >= 500 or not complete:
        return "server_error"
    return "client_error" if status >= 400 else "ok"


class _Exchange:
    """One request under way: what was received and sent so far."""

    __slots__ = (
        "_app",
        "_hooks",
        "_receive",
        "_scope",
        "_send",
        "body_bytes",
        "complete",
        "ended_at",
        "gone",
        "head",
        "request",
        "started_at",
        "status",
        "token",
    )

    def __init__(
        self, app: Routed, hooks: Hooks, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._hooks = hooks
        self._scope = scope
        self._receive = receive
        self._send = send
        self.status = 0
        self.body_bytes = 0
        self.complete = False
        self.gone = False
        self.head = scope["method"] == "HEAD"
        self.request = _request_of(scope)
        self.request.logs = hooks.logs
        self.request.find_route = self._find_route
        self.token: Token[RequestContext | None] = current_request.set(self.request)
        self.started_at = perf_counter()
        self.ended_at: float | None = None

    def seconds(self) -> float:
        """From the first byte to the last one sent, or to now if there was no last one."""
        return (self.ended_at or perf_counter()) - self.started_at

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = self.gone or not self.complete
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            try:
                message = self._opening(message)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self._hooks.failed("middleware", error)
        elif kind == "http.response.body" and not self.head:
            self.body_bytes += len(message.get("body", b""))
        try:
            await self._send(message)
        except OSError:  # the server's word for a client that has left
            self.gone = True
            raise
        if (kind == "http.response.body" and not message.get("more_body", False)) or kind in _FILE:
            self.complete = True
            # Background tasks come after it: the client waits for none of them.
            self.ended_at = perf_counter()

    def _find_route(self) -> str | None:
        if "endpoint" not in self._scope:  # no router has matched yet
            return None
        try:
            found = route_template(self._app, self._scope)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._hooks.failed("middleware", error)
            return None
        return None if found == UNMATCHED_ROUTE else found

    def _opening(self, message: Message) -> Message:
        # A client that left before the answer began got none, whatever the framework makes of it.
        self.status = _GONE if self.gone else message["status"]
        if self.request.route is None:
            self.request.route = route_template(self._app, self._scope)
        if self._hooks.on_start is not None:
            try:
                self._hooks.on_start(self._scope, self.request)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self._hooks.failed("tracing", error)
        headers = list(message.get("headers", ()))
        if not any(name == _REQUEST_ID for name, _ in headers):
            headers.append((_REQUEST_ID, self.request.request_id.encode()))
        return {**message, "headers": headers}


class RequestMiddleware:
    """Observes each HTTP request that is not excluded; WebSocket and lifespan pass untouched."""

    def __init__(self, app: ASGIApp, *, routed: Routed, hooks: Hooks) -> None:
        self.app = app
        self._routed = routed
        self._hooks = hooks
        instruments = hooks.instruments
        if instruments is not None:
            self._active = instruments.gauge(ACTIVE_REQUESTS)
            self._duration = instruments.histogram(REQUEST_DURATION)
            self._size = instruments.histogram(RESPONSE_SIZE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_within(scope) in self._hooks.excluded:
            await self.app(scope, receive, send)
            return
        try:
            if self._hooks.instruments is not None:
                self._active.at(()).inc()
            exchange = _Exchange(self._routed, self._hooks, scope, receive, send)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._hooks.failed("middleware", error)
            await self._serve_blind(scope, receive, send)
            return
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as failure:
            self._close(scope, exchange, failure)
            raise
        self._close(scope, exchange, None)

    async def _serve_blind(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if self._hooks.instruments is not None:
                self._active.at(()).dec()

    def _close(self, scope: Scope, exchange: _Exchange, failure: BaseException | None) -> None:
        seconds = exchange.seconds()
        exchange.request.find_route = None  # nothing keeps the exchange alive after its end
        try:
            status, outcome = _ending(exchange, failure)
            if exchange.request.route is None:
                exchange.request.route = route_template(self._routed, scope)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._hooks.failed("middleware", error)
            status, outcome = exchange.status or 500, "server_error"
        if self._hooks.instruments is not None:
            try:
                self._observe(scope, exchange, seconds, status, outcome)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self._hooks.failed("metrics", error)
            finally:
                self._active.at(()).dec()
        if self._hooks.access_log is not None:
            try:
                _write_line(self._hooks.access_log, exchange, seconds, status, outcome, failure)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                self._hooks.failed("logs", error)
        current_request.reset(exchange.token)

    def _observe(
        self, scope: Scope, exchange: _Exchange, seconds: float, status: int, outcome: str
    ) -> None:
        request = exchange.request
        route = request.route or UNMATCHED_ROUTE
        exemplar = self._hooks.exemplar(scope) if self._hooks.exemplar is not None else None
        self._duration.at((request.method, route, str(status), outcome)).observe(seconds, exemplar)
        self._size.at((request.method, route)).observe(exchange.body_bytes)


def _request_of(scope: Scope) -> RequestContext:
    client_id = None
    for name, value in scope["headers"]:
        if name == _REQUEST_ID and _CLIENT_ID.fullmatch(value):
            client_id = value.decode("ascii")
            break
    method = scope["method"]
    client = scope.get("client")
    return RequestContext(
        request_id=os.urandom(16).hex(),
        method=method if method in _METHODS else "_OTHER",
        path=scope["path"],
        client_request_id=client_id,
        client_address=client[0] if client else None,
    )


def _ending(exchange: _Exchange, failure: BaseException | None) -> tuple[int, str]:
    unanswered = exchange.gone or isinstance(failure, asyncio.CancelledError)
    status = exchange.status or (_GONE if unanswered else 500)
    return status, outcome_of(
        status=status, complete=exchange.complete, gone=exchange.gone, failure=failure
    )


def _write_line(
    log: AccessLog,
    exchange: _Exchange,
    seconds: float,
    status: int,
    outcome: str,
    failure: BaseException | None,
) -> None:
    request = exchange.request
    fields: dict[str, object] = {
        "http.request.method": request.method,
        "http.response.status_code": status,
        "http.route": request.route,
        "http.response.body.bytes": exchange.body_bytes,
        "url.path": request.path,
        "client.address": request.client_address,
        "event.duration": int(seconds * 1e9),
        "event.outcome": "success" if outcome in ("ok", "client_error") else "failure",
        "outcome": outcome,
    }
    if outcome in ("server_error", "timeout"):
        log.error("request served", exc_info=failure, **fields)
    else:
        log.info("request served", **fields)
