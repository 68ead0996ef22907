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
    """A field whose value is made when it is first read, and is the request's own attribute from then on.

    A descriptor for each, because a class with `__getattr__` has none of its attributes read at full speed.
    """

    def __init__(self, name: str, make: Callable[[Any, Scope], object]) -> None:
        self._name = name
        self._make = make

    def __get__(self, request: Any, owner: object = None) -> object:
        if request is None:
            return self
        found = request.__dict__[self._name] = self._make(request, request.scope)
        return found


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
    "logs": lambda request, _: request.layer.logs,
    "instruments": lambda request, _: request.layer.instruments,
}
