"""What a server span is called and what it tells of its request: templates and ids, never a raw path."""

from __future__ import annotations

from typing import Any

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import RequestContext, current_request
from taskscope.tracing.passage import Passage

__all__ = ["name_span", "named", "note_user", "words_of"]


def named(request: RequestContext) -> str:
    """The name of the request's server span, with the route that the router took."""
    method = "HTTP" if request.method == "_OTHER" else request.method
    route = request.known_route()
    return method if route is None or route == UNMATCHED_ROUTE else f"{method} {route}"


def words_of(request: RequestContext) -> dict[str, str]:
    """The attributes by which a span and the log lines of one request find each other; the same words in both."""
    words = {"http.request.id": request.request_id}
    if request.user is not None:
        words["user.hash"] = request.user
    return words


def name_span(passage: Passage) -> None:
    """The server span bears its name, its route and its request's id; nothing happens if it has ended."""
    span, request = passage.span, passage.request
    if span is None or request is None or not span.is_recording():
        return
    attributes: dict[str, Any] = {**words_of(request)}
    route = request.known_route()
    if route is not None and route != UNMATCHED_ROUTE:
        attributes["http.route"] = route
    span.update_name(named(request))
    span.set_attributes(attributes)


def note_user(passage: Passage) -> None:
    """The server span bears the user, if one is known by now; nothing happens if it has ended."""
    span = passage.span
    # Within an app that is mounted below, and instrumented too, the user is known to that one's request.
    for request in (passage.request, current_request.get()):
        if request is not None and request.user is not None:
            if span is not None and span.is_recording():
                span.set_attribute("user.hash", request.user)
            return
