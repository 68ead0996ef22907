"""The outermost ASGI layer: one request, one observation, one access line.

It stands outside of all other layers, so it sees what the client sees: errors of inner middleware, the
500 that the framework makes of them, and bytes after compression. Whatever fails in here is counted and
the request is served all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskscope.requests import background
from taskscope.requests.connection import Connection
from taskscope.requests.exchange import Exchange
from taskscope.requests.layer import AccessLog, Hooks, Layer
from taskscope.routing.route import Routed, path_within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["AccessLog", "Hooks", "RequestMiddleware"]


class RequestMiddleware:
    """Observes each HTTP request and WebSocket connection that is not excluded; lifespan passes untouched.

    answers: applications that answer one exact path each instead of `app`, and are not observed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routed: Routed,
        hooks: Hooks,
        answers: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self.app = app
        self.layer = Layer(routed, hooks)
        self._apart: dict[str, ASGIApp] = dict.fromkeys(hooks.excluded, app)
        self._apart.update(answers or {})
        if self.layer.background is not None:
            background.watch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        apart = self._apart.get(path_within(scope) if scope.get("root_path") else scope["path"])
        if apart is not None:
            await apart(scope, receive, send)
            return
        layer = self.layer
        try:
            exchange = Exchange(layer, scope, receive, send)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            layer.failed("middleware", error)
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as failure:
            exchange.close(failure)
            raise
        exchange.close(None)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = self.layer.streams
        if (
            scope["type"] != "websocket"
            or streams is None
            or path_within(scope) in self.layer.hooks.excluded
        ):
            await self.app(scope, receive, send)
            return
        await Connection(self.layer, streams, scope, receive, send).serve(self.app)
