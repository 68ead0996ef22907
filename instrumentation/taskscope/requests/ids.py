"""Request ids: 128 random bits as 32 hexadecimal digits, cut from blocks so that one costs no system call.

Read by the outermost layer. A forked child forgets what its parent had cut: no two processes ever share an id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from struct import Struct
from threading import Lock
from typing import Final
from weakref import WeakSet

__all__ = ["BLOCK", "HEADER", "Header", "RequestIds", "client_id"]

HEADER: Final = b"x-request-id"
Header = tuple[bytes, bytes]
"""A response's header: its name and its value."""

BLOCK: Final = 256
"""So many ids are cut at once."""
_DIGITS: Final = 32
_NONE: Final = b"0" * 32
_CUT: Final = Struct(f"{_DIGITS}s" * BLOCK)
_WELL_FORMED: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """A pool of ids. Safe for threads: an id that was taken is gone before another thread can look.

    ready: the ids that were cut, as the header that a response bears; whoever takes one by `pop` himself calls
    `cut` when there is none.
    """

    __slots__ = ("__weakref__", "_lock", "_made", "ready")

    def __init__(self) -> None:
        self.ready: list[Header] = []
        self._made = 0
        self._lock = Lock()
        _pools.add(self)

    @property
    def taken(self) -> int:
        """How many ids were taken."""
        return self._made - len(self.ready)

    def take(self) -> bytes:
        """An id that was never given before."""
        try:
            return self.ready.pop()[1]
        except IndexError:
            return self.cut()[1]

    def cut(self) -> Header:
        """A header with an id of a new block, whose other ids are ready then."""
        first, *others = _CUT.unpack(os.urandom(BLOCK * _DIGITS // 2).hex().encode())
        with self._lock:
            self._made += BLOCK
            self.ready.extend([(HEADER, other) for other in others])
        return HEADER, first

    def spare(self) -> Header:
        """The header of a request that could get none of its own; it counts as taken."""
        with self._lock:
            self._made += 1
        return HEADER, _NONE

    def forget(self) -> None:
        """Nothing that was cut before is given any more."""
        self._lock = Lock()  # another thread of the parent may have held it
        self._made -= len(self.ready)
        self.ready.clear()


# One hook for all pools, because nobody can take back what he asked to be called at a fork.
_pools: Final[WeakSet[RequestIds]] = WeakSet()


def _forget_all() -> None:
    for pool in tuple(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def client_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The first well-formed request id that the caller sent, or None."""
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            return value.decode("ascii")
    return None
