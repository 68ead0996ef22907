"""The server span of a sampled request as it leaves: it tells of a failure as much as a late one would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import StatusCode

from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.tracing.late import (
    EXCEPTION,
    FAILED,
    LONGEST,
    error_type,
    exception_event,
    status_of,
    type_of,
)

__all__ = ["corrected"]

_ROUTE: Final = "http.route"


def corrected(
    span: ReadableSpan, request: RequestContext, ended: Ended, before: int | None
) -> ReadableSpan:
    """The ended server span, or a copy that bears what was found out after its end; it ended when it did.

    A request that failed has an error for its status, its type, and its exception once. One that no route answers
    bears no route, as in its name and its series.
    before: how many events there were when the exception came out; None if the span had ended by then.
    """
    failed = ended.outcome in FAILED
    if not failed and request.route is not None:
        return span
    found: Mapping[str, Any] = span.attributes or {}
    strange = _strange_route(found, span.name) if request.route is None else False
    if not failed:
        return _with(span, _without_route(found), span.events, None) if strange else span
    attributes = _without_route(found) if strange else dict(found)
    attributes.setdefault("error.type", error_type(ended))
    events = span.events
    if ended.failure is not None:
        events = _told_once(events, ended.failure, before, span.end_time)
    return _with(span, attributes, events, ended)


def _strange_route(attributes: Mapping[str, Any], name: str) -> bool:
    """FastAPI's own telemetry tells of the route that a redirect leads to."""
    route = attributes.get(_ROUTE)
    return route is not None and str(route) not in name


def _without_route(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != _ROUTE}


def _told_once(
    events: Sequence[Event], failure: BaseException, before: int | None, at_ns: int | None
) -> tuple[Event, ...]:
    """The instrumentation tells of an exception once within the stack and, if the span has not ended, once outside."""
    words = (type_of(failure), str(failure)[:LONGEST])
    told = [at for at, event in enumerate(events) if _words(event) == words]
    if not told:
        return (*events, exception_event(failure, at_ns or 0))
    again = [] if before is None else [at for at in told if at >= before][1:]
    return tuple([event for at, event in enumerate(events) if at not in again])


def _words(event: Event) -> tuple[str, str] | None:
    if event.name != EXCEPTION:
        return None
    found = event.attributes or {}
    return str(found.get("exception.type")), str(found.get("exception.message"))[:LONGEST]


def _with(
    span: ReadableSpan, attributes: dict[str, Any], events: Sequence[Event], failed: Ended | None
) -> ReadableSpan:
    status = span.status
    if failed is not None and (
        status.status_code is not StatusCode.ERROR or not status.description
    ):
        status = status_of(failed.failure)
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
