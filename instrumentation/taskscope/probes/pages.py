"""The template of a page's path, out of a list of templates: a browser's word never becomes a label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, cast

__all__ = ["Pages", "templates_of"]

_CONVERTOR: Final = re.compile(r"\{(\w+):\w+\}")
_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
_REST: Final = re.compile(r"\{\w+:path\}")
_MAX_DEPTH: Final = 8


class _Routed(Protocol):
    @property
    def routes(self) -> list[Any]: ...


class _Node:
    """Where a path has come to: what may follow, and the templates that end here or take all the rest."""

    __slots__ = ("ends", "patterns", "rest", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Node] = {}
        self.patterns: dict[str, tuple[re.Pattern[str], _Node]] = {}
        self.ends: str | None = None
        self.rest: str | None = None


class Pages:
    """Looks a path up among `templates`, such as `/tasks/{task_id}` or `/files/{path:path}`.

    Literal words win over placeholders, and `{…:path}` comes last; of templates alike the first one counts.
    A look-up visits no more nodes than the templates have segments, whatever the path.
    """

    def __init__(self, templates: Iterable[str]) -> None:
        self._root = _Node()
        self._known: set[str] = set()
        for template in templates:
            self._add(template)

    def __call__(self, page: str) -> str | None:
        """The template that `page` follows or is; None if there is none. A query or fragment does not matter."""
        if page in self._known:
            return page
        path = page.partition("?")[0].partition("#")[0]
        if not path.startswith("/"):
            return None
        return _find(self._root, path[1:].removesuffix("/").split("/"), 0)

    def _add(self, template: str) -> None:
        label = _CONVERTOR.sub(r"{\1}", template)
        self._known.add(label)
        node = self._root
        for segment in template.strip("/").split("/"):
            if _REST.search(segment):
                node.rest = node.rest or label
                return
            node = _below(node, _CONVERTOR.sub(r"{\1}", segment))
        node.ends = node.ends or label


def templates_of(app: _Routed) -> list[str]:
    """The paths of the app's routes as they were declared, nested routers and mounted apps included.

    What a mount holds that tells no routes, such as a folder of files, is its prefix with `{path:path}`.
    """
    return list(_templates(app.routes, "", 0))


def _templates(routes: Iterable[object], prefix: str, depth: int) -> Iterator[str]:
    for route in _flat(routes):
        path = getattr(route, "path", None)
        if not isinstance(path, str):
            continue
        below = getattr(route, "routes", None)
        if below and depth < _MAX_DEPTH:
            yield from _templates(below, prefix + path, depth + 1)
        elif below is not None:
            yield f"{prefix}{path}/{{path:path}}"
        else:
            yield prefix + path


def _flat(routes: Iterable[object]) -> Iterator[object]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # FastAPI < 0.137: included routes are in the list already
        yield from routes
        return
    yield from iter_route_contexts(cast("Any", list(routes)))


def _below(node: _Node, segment: str) -> _Node:
    if "{" not in segment:
        return node.words.setdefault(segment, _Node())
    shape = "[^/]+".join(re.escape(part) for part in _PLACEHOLDER.split(segment))
    return node.patterns.setdefault(shape, (re.compile(shape), _Node()))[1]


def _find(node: _Node, segments: list[str], position: int) -> str | None:
    if position == len(segments):
        return node.ends or node.rest
    segment = segments[position]
    following = node.words.get(segment)
    found = _find(following, segments, position + 1) if following is not None else None
    if found is not None:
        return found
    for pattern, below in node.patterns.values():
        if pattern.fullmatch(segment) and (found := _find(below, segments, position + 1)):
            return found
    return node.rest
