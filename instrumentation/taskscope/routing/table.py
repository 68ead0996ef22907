"""All routes of an application and of what is mounted below it, by the objects that a router leaves in the scope.

Read by `route`, where the scope alone does not tell the template: below a mount, whose prefix stands nowhere, and
for Starlette's own routes in FastAPI. Walking the routes for each request would cost more than the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, Protocol, cast

__all__ = ["MOST_PLACES", "MOST_UNKNOWN", "Routed", "RoutingTable", "template_text", "walk"]

MOST_PLACES: Final = 100_000
"""The most routes that a table holds; an application that mounts itself ends there."""
MOST_UNKNOWN: Final = 256
"""The most selected objects that are remembered as being in no table; then none is looked for any more."""

_MAX_DEPTH: Final = 8
_REST: Final = "/{path}"


class Routed(Protocol):
    """An application that has routes: FastAPI, Starlette."""

    @property
    def routes(self) -> list[Any]: ...


class _Place(NamedTuple):
    """Where one route stands. patterns: of the mounts above it, outermost first, then its own."""

    template: str
    patterns: tuple[re.Pattern[str], ...]

    def fits(self, path: str) -> bool:
        """Whether a request for `path` comes by here."""
        rest = path
        for pattern in self.patterns:
            matched = pattern.match(rest)
            if matched is None:
                return False
            rest = "/" + matched.groupdict().get("path", "")
        return True


class _Above(NamedTuple):
    """Below which mounts routes stand."""

    prefix: str
    patterns: tuple[re.Pattern[str], ...]
    depth: int


_Noted = dict[int, dict[str, _Place]]
"""By the id of an object and by template: one endpoint may serve thousands of routes."""


class RoutingTable:
    """Finds a selected route's full template; made anew when routes were added."""

    __slots__ = ("_app", "_kept", "_mounted", "_places", "_unknown")

    def __init__(self, app: Routed) -> None:
        self._app = app
        self._unknown: dict[int, object] = {}
        self._read()

    def find(self, scope: MutableMapping[str, Any], context: object | None) -> str | None:
        """The template of what the scope says was selected last, or None. context: FastAPI's, if it is valid."""
        places = self._look(scope, context)
        if places is None and len(self._unknown) < MOST_UNKNOWN:
            selected = scope["endpoint"]
            if id(selected) not in self._unknown:
                self._read()
                places = self._look(scope, context)
                if places is None:
                    self._unknown[id(selected)] = selected
        if places is None:
            return walk(self._app.routes, scope)
        if len(places) == 1:
            return places[0].template
        path = _asked_path(scope)
        fitting = (place.template for place in places if place.fits(path))
        return next(fitting, None) or walk(self._app.routes, scope)

    def _look(self, scope: Mapping[str, Any], context: object | None) -> tuple[_Place, ...] | None:
        endpoint = scope["endpoint"]
        mount = self._mounted.get(id(endpoint))
        if mount is not None:
            return mount
        if context is not None:
            found = self._places.get(id(context))
            if found is not None:
                return found
        route = scope.get("route")
        # A router of FastAPI leaves an outer route where it selects one of Starlette's.
        if route is not None and getattr(route, "endpoint", None) is endpoint:
            found = self._places.get(id(route))
            if found is not None:
                return found
        return self._places.get(id(endpoint))

    def _read(self) -> None:
        self._kept: list[object] = []  # so that no id is used again while it stands here
        places: _Noted = {}
        mounted: _Noted = {}
        self._add(self._app.routes, _Above("", (), 0), places, mounted)
        self._places = _all(places)
        self._mounted = _all(mounted)

    def _add(
        self, routes: Iterable[object], above: _Above, places: _Noted, mounted: _Noted
    ) -> None:
        for route in _flat(routes):
            if len(self._kept) >= MOST_PLACES:
                return
            template = template_text(getattr(route, "path_format", None)) or ""
            pattern = getattr(route, "path_regex", None)
            patterns = above.patterns
            if isinstance(pattern, re.Pattern):
                patterns = (*patterns, pattern)
            below = _below(route)
            if below is None:
                context = getattr(route, "_route_context", None)
                original = getattr(route, "original_route", route)
                place = _Place(above.prefix + template, patterns)
                for key in (context, original, getattr(route, "endpoint", None)):
                    self._note(places, key, place)
                continue
            inner = above.prefix + template.removesuffix(_REST)
            self._note(mounted, getattr(route, "app", None), _Place(inner + _REST, patterns))
            if above.depth < _MAX_DEPTH:
                self._add(below, _Above(inner, patterns, above.depth + 1), places, mounted)

    def _note(self, table: _Noted, key: object, place: _Place) -> None:
        if key is None:
            return
        self._kept.append(key)
        table.setdefault(id(key), {}).setdefault(place.template, place)


def _all(noted: _Noted) -> dict[int, tuple[_Place, ...]]:
    return {key: tuple(places.values()) for key, places in noted.items()}


def walk(routes: Iterable[object], scope: Mapping[str, Any]) -> str | None:
    """The template that the routes give when they are tried once more, one by one; dear. None for no match."""
    return _walk(routes, _as_asked(scope), 0)


def template_text(found: object) -> str | None:
    """`found`, if it is a template."""
    return found if isinstance(found, str) and found.startswith("/") else None


def _asked_path(scope: Mapping[str, Any]) -> str:
    path: str = scope["path"]
    prefix: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def _as_asked(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The scope as it was before any router changed it, as far as matching needs it."""
    return {
        "type": scope["type"],
        "method": scope.get("method", "GET"),
        "path": scope["path"],
        "root_path": scope.get("app_root_path", scope.get("root_path", "")),
        "path_params": {},
        "headers": scope.get("headers", []),
    }


def _walk(routes: Iterable[object], scope: dict[str, Any], depth: int) -> str | None:
    partial: str | None = None
    for route in _flat(routes):
        match, child = cast("Any", route).matches(scope)
        if match.name == "NONE":
            continue
        template = getattr(route, "path_format", None) or ""
        if match.name == "PARTIAL":
            partial = partial or template_text(template)
            continue
        below = _below(route)
        if below is None:
            return template_text(template)
        inner = _walk(below, {**scope, **child}, depth + 1) if depth < _MAX_DEPTH else None
        return template.removesuffix(_REST) + (inner or _REST)
    return partial


def _below(route: object) -> list[object] | None:
    """The routes below a mount, also where its application is wrapped in others; None for what is no mount."""
    routes = getattr(route, "routes", None)
    if routes is None or routes:
        return routes
    app = getattr(route, "app", None)
    for _ in range(_MAX_DEPTH):
        if app is None:
            break
        routes = getattr(app, "routes", None)
        if routes:
            return list(routes)
        app = getattr(app, "app", None)
    return []


def _flat(routes: Iterable[object]) -> Iterator[object]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # FastAPI < 0.137: included routes are in the list already
        yield from routes
        return
    yield from iter_route_contexts(cast("Any", list(routes)))
