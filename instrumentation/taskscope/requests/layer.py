"""What the outermost layer does beside serving, and what all requests of one application share.

Read by `middleware`, and by `exchange`, whose every request has the layer it came through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.metrics.instruments import Instruments
from taskscope.requests.answers import Answers
from taskscope.requests.background import BackgroundSeries
from taskscope.requests.ids import Header, RequestIds
from taskscope.requests.series import RequestSeries
from taskscope.requests.streams import StreamSeries, streams_of
from taskscope.routing.route import Routed, RouteFinder, selected

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["AccessLog", "Hooks", "Layer"]


class AccessLog(Protocol):
    """What the access line is written through."""

    def write(self, request: RequestContext, ended: Ended) -> None:
        """One line says how the request ended."""
        ...

    def text_of(self, method: str, route: str, status: int) -> bytes:
        """What each line of such an answer says of it; empty where `write` alone can tell."""
        ...

    def served(
        self,
        request: RequestContext | None,
        request_id: bytes,
        scope: Scope,
        text: bytes,
        seconds: float,
        body_bytes: int,
    ) -> bool:
        """One line says that the request was answered well; false if only `write` can tell.

        request: if anybody has asked for it. text: as by `text_of`, not empty.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the layer does beside serving; a part that is None is switched off.

    excluded: exact paths that nothing is done for.
    logs: the log pipeline that takes the lines of a request.
    on_end: called once at a request's close, before its line, and decides itself whether it is worth a span.
    exemplar: the ids of the request's trace and server span, asked for sampled requests alone, or None.
    """

    excluded: frozenset[str]
    failed: Callable[[str, BaseException | None], None]
    instruments: Instruments | None = None
    access_log: AccessLog | None = None
    logs: object | None = None
    on_end: Callable[[Scope, RequestContext, Ended], None] | None = None
    exemplar: Callable[[Scope], tuple[str, str] | None] | None = None


class Layer:
    """What all requests of one application share.

    ids: their ids, one taken by each, so that it tells how many there were. take: gives the header of a request
    that opens; IndexError where `cut_id` must. told: the hooks, if one of them is told of a request's end.
    line: writes the line of a request that was answered well, where only a log is told. known: templates of routes,
    with what is kept of their answers.
    """

    __slots__ = (
        "answers",
        "background",
        "failed",
        "hooks",
        "ids",
        "instruments",
        "known",
        "line",
        "logs",
        "routes",
        "series",
        "streams",
        "take",
        "told",
    )

    logs: object | None
    instruments: Instruments | None

    def __init__(self, routed: Routed, hooks: Hooks) -> None:
        self.hooks = hooks
        self.failed = hooks.failed
        self.logs = hooks.logs
        self.instruments = hooks.instruments
        self.ids = RequestIds()
        self.take: Callable[[], Header] = self.ids.ready.pop
        self.routes = RouteFinder(routed)
        self.known = self.routes.known
        silent = hooks.on_end is None and hooks.access_log is None
        self.told: Hooks | None = None if silent else hooks
        log = hooks.access_log
        self.line = log.served if log is not None and hooks.on_end is None else None
        self.series: RequestSeries | None = None
        self.background: BackgroundSeries | None = None
        self.streams: StreamSeries | None = None
        if hooks.instruments is not None:
            self.series = RequestSeries(hooks.instruments, lambda: self.ids.taken)
            if self.series.noted is None:
                self.take = self.series.counting(self.take)
            self.background = BackgroundSeries(hooks.instruments)
            self.streams = streams_of(hooks.instruments)
        self.answers = Answers(self.series)

    def cut_id(self) -> Header:
        """The header with the first of the ids that are cut now. Never raises."""
        try:
            if self.series is not None:
                self.series.opened()
            return self.ids.cut()
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.failed("middleware", error)
            return self.ids.spare()

    def settle(self) -> None:
        """What was noted of requests is written. Never raises."""
        try:
            if self.series is not None:
                self.series.settle()
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.failed("metrics", error)

    def remember(self, scope: Scope, route: str, status: int) -> None:
        """The next request that is answered well in this way is told by a look. Never raises."""
        try:
            known = self.known.get(id(selected(scope)))
            if known is None or known[1] is not scope.get("route") or known[2] != route:
                return
            method, log = scope["method"], self.hooks.access_log
            text = b"" if log is None else log.text_of(method, route, status)
            answer = self.answers.of((method, route, status), text)
            if answer is not None:
                known[3].setdefault(method, {})[status] = answer
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self.failed("middleware", error)
