"""An application's middleware stack, twice: as it is, and with a layer of ours within its outermost one."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Stacks"]


class Stacks:
    """plain: the stack as the framework built it, from when it was built.

    Its outermost layer makes a 500 of an exception. What is within it sees the exception, and is shared by both.
    """

    def __init__(self, build: Callable[[], ASGIApp], inside: Callable[[ASGIApp], ASGIApp]) -> None:
        self._build = build
        self._inside = inside
        self.plain: ASGIApp | None = None

    def layered(self) -> ASGIApp:
        """The stack with the layer in it. `plain` is set."""
        self.plain = stack = self._build()
        within: ASGIApp | None = getattr(stack, "app", None)
        if within is None:  # an application that builds a stack of its own kind
            return self._inside(stack)
        layered: Any = copy(stack)
        layered.app = self._inside(within)
        return layered  # type: ignore[no-any-return] # a copy of an ASGI application is one
