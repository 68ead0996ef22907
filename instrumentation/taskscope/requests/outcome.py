"""The word for how a request ended, and what it is decided by. Read by the outermost layer."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["GONE", "client_left", "outcome_of", "raised_by"]

GONE: Final = 499
"""The status of a request whose client left before there was one; nginx's word for it."""


def outcome_of(*, status: int, complete: bool, gone: bool, failure: BaseException | None) -> str:
    """The word for how a request ended, one of OUTCOMES.

    status: as sent, or as it would have been. complete: the last byte was handed to the server.
    gone: the client had left before that, even if the app went on to answer nobody.
    Being cancelled after the last byte changes nothing; another failure does, unless it is a background task's.
    """
    if gone:
        return "disconnected"
    if (
        complete
        and status < 500
        and (failure is None or isinstance(failure, asyncio.CancelledError))
    ):
        return "client_error" if status >= 400 else "ok"
    if isinstance(failure, asyncio.CancelledError):
        return "cancelled"
    if status == 504 or isinstance(failure, TimeoutError):
        return "timeout"
    return "server_error"


def client_left(receive: object) -> bool:
    """Whether uvicorn knows that the client hung up before the response was complete.

    An app that waits without receiving is never told. uvicorn's two parsers keep it in `disconnected` of the object
    that `receive` is bound to; where there is no such thing, nobody is known to have left.
    """
    cycle = getattr(receive, "__self__", None)
    return getattr(cycle, "disconnected", False) is True


def raised_by(failure: BaseException, send: object) -> bool:
    """Whether the failure came out of the server's `send`, as the error of a client that has left does."""
    code = getattr(getattr(send, "__func__", send), "__code__", None)
    trace = failure.__traceback__
    while trace is not None and code is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False
