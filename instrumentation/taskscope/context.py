"""What one request is, shared by its metric, its span and its log lines."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token, copy_context
from dataclasses import dataclass, field
from functools import cache, wraps
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar

from taskscope.identity import Identity, new_key

__all__ = [
    "MAKE",
    "REQUEST",
    "Opened",
    "RequestContext",
    "current_request",
    "in_context",
    "requested",
    "running",
    "set_user",
]

_UNNAMED: Final = "unnamed"
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(kw_only=True)
class RequestContext:
    """One request under way. The route is known only after the router has matched; until then it is None.

    request_id: 32 hexadecimal digits made here. client_request_id: the caller's own, if it was well formed.
    trace_id, span_id: lower-case hexadecimal digits of the server span, or None without tracing.
    user: who asks, as `set_user` hashed it, or None. sampled: whether the request's trace is kept.
    logs: the log pipeline of the application that serves it, where one process has several.
    instruments: the instruments of that application.
    find_route: looks the route up while the request runs; never raises.
    """

    request_id: str
    method: str
    path: str
    client_request_id: str | None = None
    client_address: str | None = None
    route: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    user: str | None = None
    logs: object | None = field(default=None, repr=False, compare=False)
    instruments: object | None = field(default=None, repr=False, compare=False)
    find_route: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)

    def asked(self) -> tuple[str, str, str, str | None, str | None]:
        """Its id, method, path, the caller's own id and address, for who needs all of them."""
        return (
            self.request_id,
            self.method,
            self.path,
            self.client_request_id,
            self.client_address,
        )

    def known_route(self) -> str | None:
        """The route, if the router has matched by now."""
        if self.route is None and self.find_route is not None:
            self.route = self.find_route()
        return self.route


Opened = list[Any]
"""A request that nobody has asked for yet: None, or what was made of it; what makes that; and what it needs for it.

Most requests are never asked who they are, and a list costs a third of the smallest object.
"""

REQUEST: Final = 0
"""Its first place: what was made of it, or None."""
MAKE: Final = 1
"""Its second: what makes that, given the list; it never raises."""

running: Final[ContextVar[RequestContext | Opened | None]] = ContextVar(
    "taskscope_request", default=None
)
"""What `current_request` reads."""
_making: Final = RLock()


class _Current:
    """As a ContextVar, of a request that is made when it is first asked for."""

    __slots__ = ()

    def get(self) -> RequestContext | None:
        """The request, None outside of requests."""
        found = running.get()
        return requested(found) if type(found) is list else found  # type: ignore[return-value] # no list

    def set(self, request: RequestContext | None) -> Token[RequestContext | Opened | None]:
        """The code that runs from here on serves this request."""
        return running.set(request)

    def reset(self, token: Token[RequestContext | Opened | None]) -> None:
        """As before the `set` that the token is of."""
        running.reset(token)


current_request: Final = _Current()
"""The request that the running code serves; None outside of requests."""


def requested(opened: Opened) -> RequestContext:
    """The request, made if nobody has asked for it before; the same one in all threads."""
    if opened[REQUEST] is None:
        with _making:
            if opened[REQUEST] is None:
                opened[REQUEST] = opened[MAKE](opened)
    found: RequestContext = opened[REQUEST]
    return found


def set_user(user_id: str) -> None:
    """The user of the running request is known: its later lines bear `user.hash`, and so does its span.

    The id itself is kept nowhere: what is kept is a keyed hash, the same for one user in all workers and after
    restarts, as long as the service logs; without logs the key is this process's own. Works in handlers,
    dependencies and middleware, in threads that carry the request's context too. Outside of requests nothing
    happens. Never raises.
    """
    request = current_request.get()
    if request is None:
        return
    try:
        identity = getattr(request.logs, "identity", None)
        chosen = identity if isinstance(identity, Identity) else _own()
        request.user = chosen.hashed(str(user_id))
    except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
        _count(request, error)


def in_context(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, to be called in another thread, serves the request that is running here and now.

    `Thread(target=in_context(work))`, `executor.submit(in_context(work), task)`: its lines bear the request's
    id, user, route and trace, its spans have the current span as parent. The threads may run it all at once.
    What it sets in context variables stays its own. Not for coroutine functions: tasks carry the context anyway.
    """
    here = copy_context()

    @wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        # A context can be entered by one thread at a time, so each call has a copy; that costs no time.
        return here.copy().run(function, *args, **kwargs)

    return carried


@cache
def _own() -> Identity:
    return Identity(service_name=_UNNAMED, key=new_key())


def _count(request: RequestContext, error: Exception) -> None:
    try:
        failed = getattr(request.instruments, "failed", None)
        if callable(failed):
            failed("logs", error)
    except Exception:  # noqa: BLE001, S110 - what cannot even be counted must not fail the request
        pass
