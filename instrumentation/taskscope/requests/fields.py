"""What RequestContext promises of a request, made from its ASGI scope when it is first read.

Read by `exchange`. A test holds this and the fields of RequestContext together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.requests.ids import client_id

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["MAKERS", "METHODS", "Made"]

METHODS: Final = frozenset(REQUEST_DURATION.label("http.request.method").values)


class Shared(Protocol):
    """What all requests of one application share, as far as a request tells of it."""

    logs: object | None
    instruments: Any


class Asked(Protocol):
    """A request whose fields are asked for."""

    @property
    def layer(self) -> Shared: ...

    @property
    def scope(self) -> Scope: ...

    def id_bytes(self) -> bytes: ...


class Made:
    """A field whose value is made when it is first read, and kept where the field's value always was.

    A descriptor for each, because a class with `__getattr__` has none of its attributes read at full speed.
    """

    __slots__ = ("_make", "_place")

    def __init__(self, place: Any, make: Callable[[Asked, Scope], object]) -> None:
        self._place = place
        self._make = make

    def __get__(self, request: Asked | None, owner: object = None) -> object:
        if request is None:
            return self
        try:
            found: object = self._place.__get__(request)
        except AttributeError:
            found = self._make(request, request.scope)
            self._place.__set__(request, found)
        return found

    def __set__(self, request: Asked, value: object) -> None:
        self._place.__set__(request, value)


def _none(request: Asked, scope: Scope) -> None:
    del request, scope


def _false(request: Asked, scope: Scope) -> bool:
    del request, scope
    return False


def _method(request: Asked, scope: Scope) -> str:
    del request
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"


def _address(request: Asked, scope: Scope) -> str | None:
    del request
    client = scope.get("client")
    return client[0] if client else None


MAKERS: Final[dict[str, Callable[[Asked, Scope], object]]] = {
    "request_id": lambda request, _: request.id_bytes().decode("ascii"),
    "method": _method,
    "path": lambda _, scope: scope["path"],
    "client_request_id": lambda _, scope: client_id(scope["headers"]),
    "client_address": _address,
    "route": _none,
    "trace_id": _none,
    "span_id": _none,
    "sampled": _false,
    "user": _none,
    "logs": lambda request, _: request.layer.logs,
    "instruments": lambda request, _: request.layer.instruments,
    "find_route": _none,
}
