"""What one request is, shared by its metric, its span and its log lines."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Final, ParamSpec, TypeVar

from taskscope.identity import Identity, new_key

__all__ = ["RequestContext", "current_request", "in_context", "set_user"]

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


current_request: Final[ContextVar[RequestContext | None]] = ContextVar(
    "taskscope_request", default=None
)
"""The request that the running code serves; None outside of requests."""


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
