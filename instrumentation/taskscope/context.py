"""What one request is, shared by its metric, its span and its log lines."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

__all__ = ["RequestContext", "current_request"]


@dataclass(slots=True, kw_only=True)
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

    def known_route(self) -> str | None:
        """The route, if the router has matched by now."""
        if self.route is None and self.find_route is not None:
            self.route = self.find_route()
        return self.route


current_request: Final[ContextVar[RequestContext | None]] = ContextVar(
    "taskscope_request", default=None
)
"""The request that the running code serves; None outside of requests."""
