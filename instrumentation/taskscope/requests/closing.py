"""The close of a request that was answered well, in the usual way: tracing, its line and its series, in turn.

Read by the outermost layer, where somebody is told of a request's end or other processes read its series. Each part
does its work whatever the others do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscope.context import Opened, requested
from taskscope.ended import Ended
from taskscope.requests.opened import (
    BEGAN,
    BODY_BYTES,
    ENDED,
    FIRST_BYTE,
    HEADER,
    LAYER,
    REQUEST,
    SCOPE,
)
from taskscope.requests.series import SETTLE_AT, RequestSeries, exemplify

if TYPE_CHECKING:
    from starlette.types import Scope

    from taskscope.requests.answers import Answer
    from taskscope.requests.layer import Layer

__all__ = ["close_well"]


def close_well(opened: Opened, answer: Answer, logged: bool) -> None:  # noqa: C901 - a frame costs as much as a step
    """The request is told of and is in its series. logged: it has its line. Never raises."""
    layer: Layer = opened[LAYER]
    scope, began, body_bytes = opened[SCOPE], opened[BEGAN], opened[BODY_BYTES]
    seconds, first_byte_s = opened[ENDED] - began, opened[FIRST_BYTE] - began
    hooks, sampled = layer.told, False
    if hooks is not None:
        if hooks.on_end is not None:
            request = requested(opened)
            request.route = answer.route
            try:
                hooks.on_end(scope, request, Ended(answer.status, "ok", seconds, None, body_bytes))
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                layer.failed("tracing", error)
            sampled = request.sampled
        log = hooks.access_log
        if log is not None and not logged:
            try:
                header = opened[HEADER]
                if not answer.text or not log.served(
                    opened[REQUEST], header[1], scope, answer.text, seconds, body_bytes
                ):
                    request = requested(opened)
                    request.route = answer.route
                    log.write(request, Ended(answer.status, "ok", seconds, None, body_bytes))
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
                layer.failed("logs", error)
    series, values = layer.series, answer.values
    if series is None or answer.prepared is None:
        return
    if sampled:
        _measure_sampled(layer, series, scope, answer, (seconds, first_byte_s, float(body_bytes)))
    elif values is None:
        series.ended_well(answer.prepared, seconds, first_byte_s, body_bytes)
    else:
        values += (seconds, first_byte_s, body_bytes)
        if len(values) >= SETTLE_AT:
            layer.settle()


def _measure_sampled(
    layer: Layer,
    series: RequestSeries,
    scope: Scope,
    answer: Answer,
    observed: tuple[float, float, float],
) -> None:
    """One whose trace is kept bears it as an exemplar, so it is written at once."""
    seconds, first_byte_s, size = observed
    try:
        key = (answer.method, answer.route, answer.status, "ok")
        prepared = series.closed(key, seconds, first_byte_s, int(size))
        exemplar = layer.hooks.exemplar
        trace = None if exemplar is None else exemplar(scope)
        if trace is not None:
            exemplify(prepared, trace, observed)
    except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
        layer.failed("metrics", error)
    finally:
        series.left()
