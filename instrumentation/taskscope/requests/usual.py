"""What a request receives and sends while it is answered in the usual way: in two messages, and whole.

Read by the outermost layer. What is not so is followed by an exchange from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from taskscope.context import Opened, requested
from taskscope.requests.exchange import BODY, SMALL, START, Exchange
from taskscope.requests.ids import HEADER as ID
from taskscope.requests.ids import Header
from taskscope.requests.opened import (
    BEGAN,
    BODY_BYTES,
    ENDED,
    FIRST_BYTE,
    FOLLOWED,
    HEADER,
    LAYER,
    OPENING,
    RECEIVE,
    SEND,
)

if TYPE_CHECKING:
    from starlette.types import Message

__all__ = ["follow", "receiving", "sending"]

_TYPE: Final = b"content-type"
_LENGTH: Final = b"content-length"
_JSON: Final = (_TYPE, b"application/json")
_EVENTS: Final = b"text/event-stream"


def sending(opened: Opened, message: Message) -> Awaitable[None]:
    """As the server's own; what is sent is noted.

    No coroutine of our own for the two messages of an answer in one piece: it would cost as much as the rest.
    """
    if opened[FOLLOWED] is None:
        kind = message["type"]
        if kind == BODY:
            if opened[OPENING] is not None and not opened[ENDED] and not message.get("more_body"):
                size = len(message.get("body", b""))
                if size <= SMALL:
                    opened[BODY_BYTES] = size
                    opened[ENDED] = perf_counter()
                    sent: Awaitable[None] = opened[SEND](message)
                    return sent
        elif kind == START and opened[OPENING] is None:
            opening = None
            try:
                headers: list[Header] = message.get("headers", ())
                # What most answers are: nothing is to be looked for in their headers.
                if (
                    type(headers) is list
                    and len(headers) == 2
                    and headers[1] == _JSON
                    and headers[0][0] == _LENGTH
                    and len(message) == 3
                ):
                    headers = [headers[0], headers[1], opened[HEADER]]
                    opening = {"type": START, "status": message["status"], "headers": headers}
                else:
                    headers = [*headers]
                    message = {**message, "headers": headers}
                    if _looks_plain(headers):
                        opening = {**message, "headers": [*headers, opened[HEADER]]}
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                opened[LAYER].failed("middleware", error)
            if opening is not None:
                opened[OPENING] = opening
                opened[FIRST_BYTE] = perf_counter()
                begun: Awaitable[None] = opened[SEND](opening)
                return begun
        follow(opened)
    followed: Exchange | Unfollowed = opened[FOLLOWED]
    return followed.send(message)


def _looks_plain(headers: list[Header]) -> bool:
    """No id of its own, no event stream."""
    for name, value in headers:  # noqa: SIM110 - a generator costs more than all of this
        if name == ID or (name == _TYPE and value.startswith(_EVENTS)):
            return False
    return True


async def receiving(opened: Opened) -> Message:
    """As the server's own; a client that leaves before the end is noted."""
    message: Message = await opened[RECEIVE]()
    if message["type"] == "http.disconnect" and not opened[ENDED]:
        (opened[FOLLOWED] or follow(opened)).left()
    return message


def follow(opened: Opened) -> Exchange | Unfollowed:
    """The exchange that follows the request from now on, and knows what there was so far."""
    exchange = requested(opened)
    if not isinstance(exchange, Exchange):
        opened[FOLLOWED] = unfollowed = Unfollowed(opened)
        return unfollowed
    exchange.follow(opened[RECEIVE], opened[SEND], opened[BEGAN])
    opening = opened[OPENING]
    if opening is not None:
        exchange.opened(opening, opened[FIRST_BYTE])
    if opened[ENDED]:
        exchange.whole(opened[BODY_BYTES], opened[ENDED])
    opened[FOLLOWED] = exchange
    return exchange


class Unfollowed:
    """In an exchange's place, where none could be made: the request is served and nothing more is known of it."""

    __slots__ = ("_layer", "_send")

    def __init__(self, opened: Opened) -> None:
        self._layer = opened[LAYER]
        self._send = opened[SEND]

    def send(self, message: Message) -> Awaitable[None]:
        """As the server's own."""
        handed: Awaitable[None] = self._send(message)
        return handed

    def left(self) -> None:
        """Not noted."""

    def timed(self, library_s: float) -> None:
        """Not noted."""

    def close(self, failure: BaseException | None) -> None:
        """The request is under way no more."""
        del failure
        if self._layer.series is not None:
            self._layer.series.left()
