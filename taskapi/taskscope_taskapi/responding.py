"""What every answer bears, also the one to a request that met a bug."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from fastapi import Response
from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import taskscope
from taskscope_taskapi.addresses import is_https
from taskscope_taskapi.envelope import failure, named_request
from taskscope_taskapi.settings import Network

__all__ = ["CROWDED_STATE", "RATE_LIMIT_STATE", "Bugs", "Cors", "Heads", "SafeHeaders"]

RATE_LIMIT_STATE: Final = "rate_limit_headers"
"""Key of the request's state under which the limit leaves what the client is told."""

CROWDED_STATE: Final = "crowded"
"""Key of the request's state that the server sets when it holds more connections than it should."""

_SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS: Final = "max-age=31536000; includeSubDomains"

_log = taskscope.get_logger(__name__)


class SafeHeaders:
    """Each answer tells the browser what it must not do, the caller its request's id and its limit."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network]) -> None:
        self.app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and adds the headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        secure = is_https(HTTPConnection(scope), self._trusted)
        with named_request() as own_id:

            async def send_safely(message: Message) -> None:
                if message["type"] == "http.response.start":
                    told = {**_SAFE, **state.get(RATE_LIMIT_STATE, {}), "X-Request-ID": own_id}
                    headers = MutableHeaders(scope=message)
                    for name, value in told.items():
                        headers.setdefault(name, value)
                    headers.setdefault("Cache-Control", "no-store")
                    if secure:
                        headers.setdefault("Strict-Transport-Security", _HSTS)
                await send(message)

            await (_busy if state.get(CROWDED_STATE) else self.app)(scope, receive, send_safely)


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    answer = failure(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The service is busy; try again.",
        code="overloaded",
        headers={"Retry-After": "1", "Connection": "close"},
    )
    await answer(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's, with its refusals in the envelope."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight: 204, or 400 in the envelope."""
        plain = super().preflight_response(request_headers)
        allowed = plain.status_code < HTTPStatus.BAD_REQUEST
        told = {
            name: value
            for name, value in plain.headers.items()
            if name not in ("content-length", "content-type")
        }
        if allowed:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=told)
        return failure(
            HTTPStatus.BAD_REQUEST, "This origin, method or header is not allowed.", headers=told
        )


class Heads:
    """HEAD is answered as GET is, without the body. The layers outside of it know what was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on as a GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # In place, for who observes the request finds its route in this very scope; and back before the answer,
        # for the server looks there whether to expect a body.
        scope["method"] = "GET"

        async def send_head(message: Message) -> None:
            scope["method"] = "HEAD"
            await send({**message, "body": b""} if "body" in message else message)

        await self.app(scope, receive, send_head)


class Bugs:
    """An exception that no handler knows is logged with its trace and answered with 500 in the envelope.

    It stands inside of all other middleware, so that the 500 is measured, compressed and safe like any answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on. Raises only what comes after the answer has begun."""
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            trace.get_current_span().record_exception(error)
            _log.exception("request failed")
            answer = failure(
                HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed; it has been logged."
            )
            await answer(scope, receive, send)
