"""Background tasks: how long each ran after its response was sent, and whether it failed.

Starlette's `BackgroundTask` is wrapped once for the process. Whose task it is tells the current request; outside of
an instrumented application's requests a task runs as it always did. Read by the outermost layer.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from taskscope.catalogue.builtin import BACKGROUND_DURATION, UNMATCHED_ROUTE
from taskscope.context import RequestContext, current_request
from taskscope.metrics.instruments import Instruments

if TYPE_CHECKING:
    from starlette.background import BackgroundTask

__all__ = ["BackgroundSeries", "watch"]

_MARK: Final = "_taskscope_original"


class BackgroundSeries:
    """Counts the background tasks of one application."""

    __slots__ = ("_duration", "_failed")

    def __init__(self, instruments: Instruments) -> None:
        self._duration = instruments.histogram(BACKGROUND_DURATION)
        self._failed = instruments.failed

    def ended(self, request: RequestContext, seconds: float, failure: BaseException | None) -> None:
        """One task of the request's route ran for so many seconds. Never raises."""
        try:
            outcome = "ok" if failure is None else "error"
            if isinstance(failure, asyncio.CancelledError):
                outcome = "cancelled"
            route = request.known_route() or UNMATCHED_ROUTE
            self._duration.at((route, outcome)).observe(seconds)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the task
            self._failed("middleware", error)


def watch() -> None:
    """Each task of Starlette's and FastAPI's is counted from now on; a second call changes nothing.

    A list of tasks is counted task by task. A class that overrides `__call__` without calling its parent's is not.
    """
    from starlette.background import BackgroundTask

    original = BackgroundTask.__call__
    if hasattr(original, _MARK):
        return

    async def observed(self: BackgroundTask) -> None:
        request = current_request.get()
        series = None if request is None else _series_of(request)
        if request is None or series is None:
            await original(self)
            return
        began = perf_counter()
        try:
            await original(self)
        except BaseException as failure:
            _excuse(request, failure)
            series.ended(request, perf_counter() - began, failure)
            raise
        series.ended(request, perf_counter() - began, None)

    setattr(observed, _MARK, original)
    BackgroundTask.__call__ = observed  # type: ignore[method-assign] # the one place all tasks come by


def _excuse(request: RequestContext, failure: BaseException) -> None:
    # An exchange has a place for it; another request does not judge.
    if hasattr(request, "excused"):
        request.excused = failure


def _series_of(request: RequestContext) -> BackgroundSeries | None:
    layer: Any = getattr(request, "layer", None)
    found = getattr(layer, "background", None)
    return found if isinstance(found, BackgroundSeries) else None
