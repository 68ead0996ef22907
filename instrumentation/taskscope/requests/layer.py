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
from taskscope.requests.background import BackgroundSeries
from taskscope.requests.ids import RequestIds
from taskscope.requests.series import Noted, RequestSeries
from taskscope.requests.streams import StreamSeries, streams_of
from taskscope.routing.route import Routed, RouteFinder

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["AccessLog", "Hooks", "Layer"]


class AccessLog(Protocol):
    """What the access line is written through."""

    def write(self, request: RequestContext, ended: Ended) -> None:
        """One line says how the request ended."""
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

    ids: their ids, one taken by each, so that it tells how many there were. noted: where requests that ended well
    are noted, None where they are written at once or not at all. told: the hooks, if one of them is told of a
    request's end. known: templates of routes. times_next: the library's own time is taken of the next request.
    """

    __slots__ = (
        "background",
        "failed",
        "hooks",
        "ids",
        "instruments",
        "known",
        "logs",
        "noted",
        "ready",
        "routes",
        "series",
        "streams",
        "times_next",
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
        self.ready = self.ids.ready
        self.routes = RouteFinder(routed)
        self.known = self.routes.known
        silent = hooks.on_end is None and hooks.access_log is None
        self.told: Hooks | None = None if silent else hooks
        self.times_next = False
        self.series: RequestSeries | None = None
        self.noted: Noted | None = None
        self.background: BackgroundSeries | None = None
        self.streams: StreamSeries | None = None
        if hooks.instruments is not None:
            self.series = RequestSeries(hooks.instruments, lambda: self.ids.taken)
            self.noted = self.series.noted
            self.background = BackgroundSeries(hooks.instruments)
            self.streams = streams_of(hooks.instruments)

    def cut_id(self) -> bytes:
        """The first of the ids that are cut now. Of the next request the library's own time is taken. Never raises."""
        self.times_next = True
        try:
            return self.ids.cut()
        except Exception as error:  # noqa: BLE001 - a request is measured also without an id
            self.failed("middleware", error)
            return self.ids.spare()
