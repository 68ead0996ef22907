"""Request ids: 128 random bits as 32 hexadecimal digits, cut from blocks so that one costs no system call.

Read by the outermost layer. A forked child forgets what its parent had cut: no two processes ever share an id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from struct import Struct
from typing import Final

__all__ = ["HEADER", "RequestIds", "client_id", "request_ids"]

HEADER: Final = b"x-request-id"

_BLOCK: Final = 64
_DIGITS: Final = 32
_CUT: Final = Struct(f"{_DIGITS}s" * _BLOCK)
_WELL_FORMED: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """A pool of ids. Safe for threads: an id that was taken is gone before another thread can look.

    ready: the ids that were cut; whoever takes one by `pop` himself calls `cut` when there is none.
    """

    __slots__ = ("ready",)

    def __init__(self) -> None:
        self.ready: list[bytes] = []

    def take(self) -> bytes:
        """An id that was never given before."""
        try:
            return self.ready.pop()
        except IndexError:
            return self.cut()

    def cut(self) -> bytes:
        """As `take`, from a new block, whose other ids are ready then."""
        first, *others = _CUT.unpack(os.urandom(_BLOCK * _DIGITS // 2).hex().encode())
        self.ready.extend(others)
        return bytes(first)

    def forget(self) -> None:
        """Nothing that was cut before is given any more."""
        self.ready.clear()


request_ids: Final = RequestIds()
"""The pool of this process: one, because nobody can take back what he asked to be called at a fork."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=request_ids.forget)


def client_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The first well-formed request id that the caller sent, or None."""
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            return value.decode("ascii")
    return None
