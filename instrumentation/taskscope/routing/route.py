"""The template of the route that answered a request, read from the scope after routing.

Read by the middleware. A raw path is never returned: what no route answers is `unmatched`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.routing.table import Routed, RoutingTable, template_text

__all__ = [
    "CONTEXT",
    "FASTAPI",
    "MOUNTED",
    "Known",
    "RouteFinder",
    "Routed",
    "path_within",
    "route_template",
    "selected",
]

# FastAPI >= 0.137 keeps the prefixes of included routers apart from the route, under a key of its own. It is not
# documented: where it is not as expected, the table of all routes below gives the answer.
FASTAPI: Final = "fastapi"
CONTEXT: Final = "effective_route_context"
MOUNTED: Final = "app_root_path"
"""Starlette's key of a scope that has passed a mount."""
_INCLUDED: Final = "included_router"

Known = tuple[object, object, str, dict[str, dict[int, Any]]]

MOST_KNOWN: Final = 10_000
"""As many routes have their templates at hand."""


def path_within(scope: Mapping[str, Any]) -> str:
    """The path as the application's own routes see it: without the prefix that it is served under.

    uvicorn's `--root-path` and a mount put that prefix before the path of every request.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


class RouteFinder:
    """Finds the templates of one application's routes; what was looked for once is found at once.

    known: by the id of what a router selected, that, its route, the template, and a place for what is kept of its
    answers, by method and status. What was selected is kept there, so no other object has that id.
    """

    __slots__ = ("_app", "_table", "known")

    def __init__(self, app: Routed) -> None:
        self._app = app
        self._table: RoutingTable | None = None
        self.known: dict[int, Known] = {}

    def find(self, scope: MutableMapping[str, Any]) -> str:
        """The full template of the route that was selected, prefixes and mounts included; else `unmatched`.

        A method that the route does not take keeps the route; a redirect of a trailing slash is `unmatched`.
        What no route under a mount answers has the mount's template, with `{path}` for the rest.
        """
        route, inner = scope.get("route"), scope.get(FASTAPI)
        if route is None:
            if "endpoint" not in scope:  # no router has selected anything
                return UNMATCHED_ROUTE
        elif MOUNTED not in scope:
            # Where no mount was passed, what the router left here is the whole template.
            selected = route
            if inner:
                selected = _context(scope) or (None if _INCLUDED in inner else route)
            known = self.known.get(id(selected))
            if known is not None and known[1] is route:
                return known[2]
            template = _template_of(selected)
            if template is not None:
                if len(self.known) < MOST_KNOWN:
                    self.known[id(selected)] = (selected, route, template, {})
                return template
        if self._table is None:
            self._table = RoutingTable(self._app)
        return self._table.find(scope, _context(scope)) or UNMATCHED_ROUTE


def route_template(app: Routed, scope: MutableMapping[str, Any]) -> str:
    """As `RouteFinder(app).find(scope)`, for whoever asks once."""
    return RouteFinder(app).find(scope)


def selected(scope: Mapping[str, Any]) -> object | None:
    """What a router left in the scope: the key under which its template is at hand."""
    inner = scope.get(FASTAPI)
    found: object | None = inner.get(CONTEXT) if inner else scope.get("route")
    return found


def _template_of(selected: object) -> str | None:
    effective = getattr(selected, "starlette_route", None) or selected
    return template_text(getattr(effective, "path_format", None))


def _context(scope: Mapping[str, Any]) -> object | None:
    """What FastAPI keeps about the included route that it selected last, if it still is the selected one."""
    inner = scope.get(FASTAPI)
    context: object | None = inner.get(CONTEXT) if isinstance(inner, dict) else None
    if context is None:
        return None
    route = scope.get("route")
    original = getattr(context, "original_route", None)
    if original is route or route is None or getattr(context, "starlette_route", None) is route:
        return context
    return None
