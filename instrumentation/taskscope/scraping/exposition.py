"""`/metrics` on the app's own port: who may ask, what is asked for, and the answer.

Rendered in a thread, so that a large exposition never holds up a request. It answers ahead of the app's
routes, so a catch-all route cannot hide it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

from taskscope.scraping.scrapes import Format, Scrapes, formatted, gzips
from taskscope.threads import in_thread

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Answer", "Exposition", "allowed", "headers_of"]

_FAILED: Final = b"the metrics could not be rendered; the service's log says why\n"
_UNKNOWN: Final = b"present the token of TASKSCOPE_METRICS_TOKEN as a bearer token\n"
_PLAIN: Final = "text/plain; charset=utf-8"
_BEARER: Final = b"bearer "


class Answer(NamedTuple):
    """What goes back to a scraper."""

    status: int
    body: bytes
    content_type: str = _PLAIN
    zipped: bool = False


FAILED: Final = Answer(500, _FAILED)
UNKNOWN: Final = Answer(401, _UNKNOWN)
REFUSED: Final = Answer(405, b"")


def allowed(authorization: bytes, token: str | None) -> bool:
    """Whether an Authorization header presents the token; always without one. Takes the same time for any text."""
    if token is None:
        return True
    scheme, presented = authorization[: len(_BEARER)].lower(), authorization[len(_BEARER) :]
    return compare_digest(presented.strip(), token.encode()) and scheme == _BEARER


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The answer's headers, in the order they are sent."""
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept, accept-encoding"),
    ]
    if answer.zipped:
        headers.append((b"content-encoding", b"gzip"))
    if answer.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if answer.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    return headers


class Exposition:
    """An ASGI endpoint that answers GET and HEAD with the series.

    Prometheus's text format, or OpenMetrics where the Accept header asks for it; gzip where it may.
    token: what a scrape must present. A rendering that failed gives 500, nobody else notices.
    """

    def __init__(self, scrapes: Scrapes, *, token: str | None = None) -> None:
        self._scrapes = scrapes
        self._token = token
        self._under_way: dict[tuple[Format, bool], asyncio.Future[bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scrape is answered."""
        del receive
        answer = await self._answer(scope)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": headers_of(answer),
            }
        )
        head = scope["method"] == "HEAD"
        await send({"type": "http.response.body", "body": b"" if head else answer.body})

    async def _answer(self, scope: Scope) -> Answer:
        if not allowed(_header(scope, b"authorization"), self._token):
            return UNKNOWN
        if scope["method"] not in ("GET", "HEAD"):
            return REFUSED
        wanted = formatted(_header(scope, b"accept").decode("latin-1"))
        zipped = gzips(_header(scope, b"accept-encoding").decode("latin-1"))
        try:
            body = await self._body(wanted, zipped)
        except Exception:  # noqa: BLE001 - counted by Scrapes; whatever a collector raises, the answer is 500
            return FAILED
        return Answer(200, body, wanted.content_type, zipped)

    async def _body(self, wanted: Format, zipped: bool) -> bytes:
        fresh = self._scrapes.fresh(wanted, zipped=zipped)
        if fresh is not None:
            return fresh
        key = (wanted, zipped)
        answer = self._under_way.get(key)
        loop = asyncio.get_running_loop()
        if answer is None or answer.done() or answer.get_loop() is not loop:
            answer = in_thread(
                partial(self._scrapes.answer, wanted, zipped=zipped), name="taskscope scrape"
            )
            self._under_way[key] = answer
        # Shielded: a scraper that hangs up must not cancel what others wait for.
        return await asyncio.shield(answer)


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b",".join([value for name, value in scope["headers"] if name == wanted])
