"""A request's body comes whole, small and in time, or the request is refused."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskscope_taskapi.envelope import failure

__all__ = ["BodyGuard"]

_CLOSE: Final = {"Connection": "close"}
"""What was not read yet would be taken for the next request, so the connection ends with the answer."""


class BodyGuard:
    """Whoever reads a body that is too long or too slow meets 413 or 408.

    most_bytes: of a body. deadline_s: from the request's start to its body's last byte.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int, deadline_s: float) -> None:
        self.app = app
        self._most_bytes = most_bytes
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with a guarded `receive`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # Two ends for one body: a proxy may believe the other one, and the rest is a smuggled request.
            message = "A body has either a length or chunks."
            await failure(HTTPStatus.BAD_REQUEST, message, headers=_CLOSE)(scope, receive, send)
            return
        guard = _Receiver(receive, most_bytes=self._most_bytes, deadline_s=self._deadline_s)
        guard.announced = _announced(scope)
        await self.app(scope, guard.receive, send)


class _Receiver:
    def __init__(self, receive: Receive, *, most_bytes: int, deadline_s: float) -> None:
        self._receive = receive
        self._most_bytes = most_bytes
        self._ends = asyncio.get_running_loop().time() + deadline_s
        self._came = 0
        self._whole = False
        self.announced = 0

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        if self.announced > self._most_bytes:
            raise self._too_long()
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time.", _CLOSE
            ) from error
        self._came += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._came > self._most_bytes:
            raise self._too_long()
        return message

    def _too_long(self) -> HTTPException:
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body is longer than {self._most_bytes} bytes.",
            _CLOSE,
        )


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
