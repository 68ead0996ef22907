"""The template of the route that answered a request, read from the scope after routing.

Read by the middleware. A raw path is never returned: what no route answers is `unmatched`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Protocol, cast

from taskscope.catalogue.builtin import UNMATCHED_ROUTE

__all__ = ["Routed", "path_within", "route_template"]

_MAX_DEPTH: Final = 8


class Routed(Protocol):
    """An application that has routes: FastAPI, Starlette."""

    @property
    def routes(self) -> list[Any]: ...


def path_within(scope: Mapping[str, Any]) -> str:
    """The path as the application's own routes see it: without the prefix that it is served under.

    uvicorn's `--root-path` and a mount put that prefix before the path of every request.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def route_template(app: Routed, scope: MutableMapping[str, Any]) -> str:
    """The full template of the route that was selected, prefixes and mounts included; else `unmatched`.

    A method that the route does not take keeps the route; a redirect of a trailing slash is `unmatched`.
    """
    if "endpoint" not in scope:  # no router has selected anything
        return UNMATCHED_ROUTE
    if (
        "app_root_path" not in scope
    ):  # no mount was passed, so what the router left here is the whole
        template = _selected(scope)
        if template is not None:
            return template
    return _walk(app.routes, _as_asked(scope)) or UNMATCHED_ROUTE


def _selected(scope: Mapping[str, Any]) -> str | None:
    route = scope.get("route")
    if route is None:
        return None
    # FastAPI >= 0.137 keeps the prefixes of included routers apart from the route, under a key of its own.
    # It is not documented: where it is not as expected, the walk over the routes below gives the answer.
    inner = scope.get("fastapi")
    context = inner.get("effective_route_context") if isinstance(inner, dict) else None
    if context is not None and getattr(context, "original_route", None) is route:
        return _text(getattr(context, "path_format", None))
    if isinstance(inner, dict) and "included_router" in inner:
        return None
    return _text(getattr(route, "path_format", None))


def _text(found: object) -> str | None:
    return found if isinstance(found, str) and found.startswith("/") else None


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


def _walk(routes: Iterable[object], scope: dict[str, Any], depth: int = 0) -> str | None:
    partial: str | None = None
    for route in _flat(routes):
        match, child = cast("Any", route).matches(scope)
        if match.name == "NONE":
            continue
        template = getattr(route, "path_format", None) or ""
        if match.name == "PARTIAL":
            partial = partial or _text(template)
            continue
        below = getattr(route, "routes", None)
        if below is None:
            return _text(template)
        prefix = template.removesuffix("/{path}")
        inner = _walk(below, {**scope, **child}, depth + 1) if depth < _MAX_DEPTH else None
        return prefix + (inner or "/{path}")
    return partial


def _flat(routes: Iterable[object]) -> Iterator[object]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # FastAPI < 0.137: included routes are in the list already
        yield from routes
        return
    yield from iter_route_contexts(cast("Any", list(routes)))
