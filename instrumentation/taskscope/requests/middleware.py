"""The outermost ASGI layer: one request, one observation, one access line.

It stands outside of all other layers, so it sees what the client sees: errors of inner middleware, the
500 that the framework makes of them, and bytes after compression. Whatever fails in here is counted and
the request is served all the same.

Most requests are answered well, in two messages. Those are followed here, in one frame, for between the turns of an
application each call, each object and each look costs three times what it does alone; the exchange takes over what
is not so.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from time import perf_counter
from types import MethodType
from typing import TYPE_CHECKING, Final

from taskscope.context import Opened, running
from taskscope.requests import background
from taskscope.requests.answers import Answer
from taskscope.requests.closing import close_well
from taskscope.requests.connection import Connection
from taskscope.requests.exchange import made
from taskscope.requests.layer import AccessLog, Hooks, Layer
from taskscope.requests.opened import FOLLOWED, HEADER, REQUEST
from taskscope.requests.series import SETTLE_AT
from taskscope.requests.usual import follow, receiving, sending
from taskscope.routing.route import CONTEXT, FASTAPI, MOUNTED, Routed, path_within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["AccessLog", "Hooks", "RequestMiddleware"]

_LEFT: Final = "disconnected"


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

    async def __call__(  # noqa: C901 - one frame, as said above
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        apart = self._apart.get(path_within(scope) if scope.get("root_path") else scope["path"])
        if apart is not None:
            await apart(scope, receive, send)
            return
        layer = self.layer
        try:
            header = layer.take()
            opened: Opened = [
                # In the order of the places of `opened`.
                None,
                made,
                layer,
                scope,
                header,
                receive,
                send,
                perf_counter(),
                None,
                0.0,
                0.0,
                0,
                None,
            ]
        except IndexError:
            opened = self._open_timed(scope, receive, send)
        # uvicorn's own object knows whether the client has left; other servers tell it to who receives.
        knows = type(receive) is MethodType and hasattr(receive.__self__, _LEFT)
        token = running.set(opened)
        try:
            await self.app(
                scope, receive if knows else partial(receiving, opened), partial(sending, opened)
            )
        except BaseException as failure:
            (opened[FOLLOWED] or follow(opened)).close(failure)
            # Whoever closes an abandoned application does so in a context of his own, which has no request.
            with suppress(ValueError):
                running.reset(token)
            raise
        # In the order of the places of `opened`.
        _, _, _, _, _, _, _, began, opening, first_byte_at, ended_at, size, followed = opened
        answer: Answer | None = None
        try:
            if (
                ended_at
                and followed is None
                # As `client_left`, without the call.
                and not (knows and receive.__self__.disconnected)  # type: ignore[attr-defined]
                and MOUNTED not in scope
            ):
                route, inner = scope.get("route"), scope.get(FASTAPI)
                # As `selected`, without the call.
                known = layer.known.get(id(inner.get(CONTEXT) if inner else route))
                if known is not None and known[1] is route:
                    kinds = known[3].get(scope["method"])
                    if kinds is not None:
                        answer = kinds.get(opening["status"])
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            layer.failed("middleware", error)
        if answer is None:
            (followed or follow(opened)).close(None)
        else:
            logged, values, seconds = False, answer.values, ended_at - began
            if layer.line is not None and answer.text:
                try:
                    request_id = opened[HEADER][1]
                    logged = layer.line(
                        opened[REQUEST], request_id, scope, answer.text, seconds, size
                    )
                except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                    layer.failed("logs", error)
                    logged = True
            if values is None or not (logged or layer.told is None):
                close_well(opened, answer, logged)
            else:
                # What most requests are, and what costs the least.
                values += (seconds, first_byte_at - began, size)
                if len(values) >= SETTLE_AT:
                    layer.settle()
        running.reset(token)

    def _open_timed(self, scope: Scope, receive: Receive, send: Send) -> Opened:
        """A request of which the library's own time is taken, followed from its start."""
        header = self.layer.cut_id()
        began = perf_counter()
        opened: Opened = [None, made, self.layer, scope, header, receive, send, began]
        opened += (None, 0.0, 0.0, 0, None)
        follow(opened).timed(perf_counter() - began)
        return opened

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
