"""The trace behind what the running code counts, if it is kept."""

from __future__ import annotations

from time import time

from taskscope.context import current_request
from taskscope.metrics.store import Exemplar

__all__ = ["current_exemplar"]


def current_exemplar(value: float) -> Exemplar | None:
    """The running request's trace as the exemplar of `value`; None outside of sampled requests."""
    request = current_request.get()
    if request is None or not request.sampled or not (request.trace_id and request.span_id):
        return None
    return Exemplar(request.trace_id, request.span_id, value, time())
