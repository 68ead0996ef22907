"""Web vitals and script errors as browsers report them: an endpoint that anybody may write to, and little comes in.

    telemetry.beacon(path="/vitals")
    <script src="/vitals.js" async></script>

Anybody can post anything, so these series say what browsers claim; nobody is woken by them. Names come from a
list, routes from the service's own templates, values are clamped, and both callers and bytes are limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.catalogue.groups import (
    BEACON_REFUSED,
    BROWSER_ERRORS,
    LAYOUT_SHIFT,
    WEB_VITAL_DURATION,
)
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.webvitals_limit import Limit
from taskscope.probes.webvitals_report import Refused, Report, read
from taskscope.probes.webvitals_script import SCRIPT

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

__all__ = ["MAX_BODY", "READ_S", "WebVitalsBeacon"]

MAX_BODY: Final = 4_096
"""The most bytes of a report; reading stops there."""

READ_S: Final = 5.0
"""For how long a report may take to arrive."""

_STATUS: Final = {"size": 413, "rate": 429, "origin": 403, "syntax": 400, "name": 400, "value": 400}
_SCRIPT_HEADERS: Final = [
    (b"content-type", b"text/javascript; charset=utf-8"),
    (b"content-length", str(len(SCRIPT)).encode()),
    (b"cache-control", b"public, max-age=3600"),
    (b"x-content-type-options", b"nosniff"),
]
_EMPTY: Final = (b"content-length", b"0")


class WebVitalsBeacon:
    """An ASGI app: `POST` takes a report, `GET` of a path that ends in `.js` gives the script that sends them.

    routes: the template of a page's path, None for a page that is not the service's; `Pages` is one.
    origins: the values of `Origin` that are let in; None lets in all, an empty list none. per_second: the most
    reports of all clients together, per_client: of one address, an IPv6 network of 64 bits being one; twenty
    seconds' worth may come at once. Behind a proxy let the server take the address from it, else all browsers
    are one. clock: seconds, monotonic. Raises MetricError if the catalogue does not declare the group WEB_VITALS.
    """

    def __init__(
        self,
        instruments: Instruments,
        routes: Callable[[str], str | None],
        *,
        origins: Iterable[str] | None = None,
        per_second: float = 50.0,
        per_client: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._instruments = instruments
        self._routes = routes
        self._origins = None if origins is None else frozenset(text.encode() for text in origins)
        self._limit = Limit(per_second=per_second, per_client=per_client, clock=clock)
        try:
            self._durations = instruments.histogram(WEB_VITAL_DURATION)
            self._shifts = instruments.histogram(LAYOUT_SHIFT)
            self._errors = instruments.counter(BROWSER_ERRORS)
            self._refused = instruments.counter(BEACON_REFUSED)
        except MetricError as error:
            raise MetricError(
                f"beacon: the catalogue of {instruments.catalogue.service} does not declare its metrics; "
                "add *WEB_VITALS of taskscope.catalogue.groups to Catalogue(metrics=…)"
            ) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request is answered, with an empty body but for the script; a WebSocket is refused."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if method in {"GET", "HEAD"} and path.endswith(".js"):
            await _answer(send, 200, _SCRIPT_HEADERS, SCRIPT if method == "GET" else b"")
        elif method != "POST":
            allowed = b"GET, HEAD" if path.endswith(".js") else b"POST"
            await _answer(send, 405, [_EMPTY, (b"allow", allowed)])
        else:
            status = await self._take(scope, receive)
            if status == 204:
                await _answer(send, status, [])
            elif status is not None:
                await _answer(send, status, _refusal(scope))

    async def _take(self, scope: Scope, receive: Receive) -> int | None:
        """The status of the answer; None if the client has left. A fault of ours is the client's 204."""
        try:
            self._check(scope)
            body = await _body(receive)
            if body is None:
                return None
            self._count(read(body))
        except Refused as refused:
            self._refused.at((refused.reason,)).inc()
            return _STATUS[refused.reason]
        except Exception as error:  # noqa: BLE001 - a probe never fails a request
            self._instruments.failed("probes", error)
        return 204

    def _check(self, scope: Scope) -> None:
        origin = length = b""
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"content-length":
                length = value
        if self._origins is not None and origin not in self._origins:
            raise Refused("origin")
        client = scope.get("client")
        if not self._limit.take(client[0] if client else ""):
            raise Refused("rate")
        if length and (not length.isdigit() or len(length) > 9 or int(length) > MAX_BODY):
            raise Refused("size")

    def _count(self, report: Report) -> None:
        route = self._route(report.page)
        for vital, seconds in report.durations:
            self._durations.at((route, vital)).observe(seconds)
        if report.shift is not None:
            self._shifts.at((route,)).observe(report.shift)
        if report.errors:
            self._errors.at((route,)).inc(report.errors)

    def _route(self, page: str) -> str:
        try:
            return self._routes(page) or UNMATCHED_ROUTE
        except Exception as error:  # noqa: BLE001 - what cannot be looked up is unmatched
            self._instruments.failed("probes", error)
            return UNMATCHED_ROUTE


def _refusal(scope: Scope) -> list[tuple[bytes, bytes]]:
    # What was not read may never end: the connection is not kept for it. HTTP/2 knows no such header.
    closes = scope.get("http_version", "1.1").startswith("1")
    return [_EMPTY, (b"connection", b"close")] if closes else [_EMPTY]


async def _body(receive: Receive) -> bytes | None:
    """The body, None if the client left before its end. Raises Refused for one that is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            while True:
                message: Message = await receive()
                if message["type"] != "http.request":
                    return None
                chunk: bytes = message.get("body", b"")
                if len(body) + len(chunk) > MAX_BODY:
                    raise Refused("size")
                body += chunk
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refused("syntax") from None


async def _answer(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
