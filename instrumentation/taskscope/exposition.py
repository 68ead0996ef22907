"""`/metrics`: what a registry holds, as text for Prometheus.

Rendered in a thread, so that a large exposition never holds up a request; scrapes that come within a second
share one rendering. It answers ahead of the app's routes, so a catch-all route cannot hide it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from taskscope.route import path_within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Exposition", "ExpositionMiddleware"]

_SHARED_S: Final = 1.0
# Of the Accept header only this is asked: the versions and escapings in it are the caller's words, and each
# would be a rendering of its own. All names are within the legacy character set, so nothing is escaped.
_OPENMETRICS_TYPE: Final = "application/openmetrics-text"
_OPENMETRICS: Final = f"{_OPENMETRICS_TYPE};version=1.0.0"
_FAILED: Final = b"the metrics could not be rendered; the service's log says why\n"


class _Rendering(NamedTuple):
    made_at: float
    text: asyncio.Task[bytes]


class Exposition:
    """An ASGI endpoint that answers GET and HEAD with the registry's series.

    Prometheus's text format, or OpenMetrics where the Accept header asks for it.
    failed: told of each rendering that raised; the scrape gets 500, nobody else notices.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        failed: Callable[[str, BaseException | None], None],
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._registry = registry
        self._failed = failed
        self._now = now
        self._renderings: dict[str, _Rendering] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scrape is answered."""
        del receive
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"", "text/plain; charset=utf-8", allow=True)
            return
        try:
            content_type, body = await self._render(_accept(scope))
        except Exception as error:  # noqa: BLE001 - whatever a collector raises, the answer is 500
            self._failed("metrics", error)
            await _answer(send, 500, _FAILED, "text/plain; charset=utf-8")
            return
        await _answer(send, 200, body, content_type, head=scope["method"] == "HEAD")

    async def _render(self, accept: str) -> tuple[str, bytes]:
        encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS_TYPE in accept else "")
        last = self._renderings.get(content_type)
        if last is None or self._is_old(last):
            task = asyncio.create_task(asyncio.to_thread(encode, self._registry))
            last = _Rendering(self._now(), task)
            self._renderings[content_type] = last
        # Shielded: a scraper that hangs up must not cancel what others wait for.
        return content_type, await asyncio.shield(last.text)

    def _is_old(self, rendering: _Rendering) -> bool:
        if not rendering.text.done():
            return False
        if rendering.text.cancelled() or rendering.text.exception() is not None:
            return True
        return self._now() - rendering.made_at >= _SHARED_S


class ExpositionMiddleware:
    """Answers one exact path of the app with the exposition and hands everything else on."""

    def __init__(self, app: ASGIApp, *, path: str, endpoint: Exposition) -> None:
        self.app = app
        self._path = path
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_within(scope) == self._path:
            await self._endpoint(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _accept(scope: Scope) -> str:
    values = [value for name, value in scope["headers"] if name == b"accept"]
    return b",".join(values)[:1024].decode("latin-1")


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: str,
    *,
    head: bool = False,
    allow: bool = False,
) -> None:
    headers = [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if allow:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
