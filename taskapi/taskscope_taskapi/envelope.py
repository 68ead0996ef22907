"""The one shape of every answer, and the entity tag of what is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final, Generic, TypeVar
from uuid import uuid4

from fastapi import Request, Response
from pydantic import BaseModel

from taskscope.context import current_request
from taskscope_taskapi.schemas import Page

__all__ = [
    "Envelope",
    "Fault",
    "Meta",
    "answer",
    "entity_tag",
    "failure",
    "named_in",
    "read",
    "request_id",
]

Data = TypeVar("Data")

_JSON = "application/json"
# Written out, for Python's own phrases change from one version to the next.
_CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    422: "validation_error",
    429: "rate_limited",
    431: "headers_too_large",
    500: "internal_error",
    503: "unavailable",
}
_own_id: ContextVar[str | None] = ContextVar("taskapi_request_id", default=None)
"""For requests that are not observed, the probes: nobody else names them."""


class Fault(BaseModel):
    """Why a request was not served. `code` is for programs, `message` for people."""

    code: str
    message: str
    details: list[dict[str, str]] = []


class Meta(BaseModel):
    """What is said about an answer."""

    request_id: str
    pagination: Page | None = None


class Envelope(BaseModel, Generic[Data]):
    """Either `data` or `error`, and always `meta`."""

    success: bool
    data: Data | None = None
    error: Fault | None = None
    meta: Meta


def request_id() -> str:
    """The id that the request's span and log lines bear, the same wherever it is asked for."""
    request = current_request.get()
    return request.request_id if request is not None else _own_id.get() or uuid4().hex


@contextmanager
def named_request() -> Iterator[str]:
    """The id of the request that runs in the block; the probes are not observed and get one here."""
    token = _own_id.set(uuid4().hex)
    try:
        yield request_id()
    finally:
        _own_id.reset(token)


def answer(
    data: BaseModel | Sequence[BaseModel],
    *,
    status: HTTPStatus = HTTPStatus.OK,
    page: Page | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A success with `data`."""
    success = status < HTTPStatus.BAD_REQUEST
    whole = Envelope[BaseModel | Sequence[BaseModel]].model_construct(
        success=success, data=data, meta=Meta(request_id=request_id(), pagination=page)
    )
    body = whole.model_dump_json(serialize_as_any=True)
    return Response(body, status_code=status, media_type=_JSON, headers=headers)


def failure(
    status: int,
    message: str,
    *,
    code: str | None = None,
    details: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A refusal or an error; `code` is the status's own name unless given."""
    whole = Envelope[None](
        success=False,
        error=Fault(
            code=code or _code(status),
            message=message,
            details=[dict(detail) for detail in details],
        ),
        meta=Meta(request_id=request_id()),
    )
    return Response(
        whole.model_dump_json(), status_code=status, media_type=_JSON, headers=dict(headers or {})
    )


def read(
    request: Request,
    data: BaseModel | Sequence[BaseModel],
    *,
    tag: str,
    page: Page | None = None,
) -> Response:
    """The answer to a read: `data`, or 304 when the caller holds it already."""
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if named_in(request.headers.get("if-none-match"), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return answer(data, page=page, headers=headers)


def entity_tag(*parts: object) -> str:
    """A tag that changes when one of `parts` does.

    It stands for the data, not for the bytes: those differ by the request's id in `meta`.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(
            part.model_dump_json().encode() if isinstance(part, BaseModel) else repr(part).encode()
        )
        digest.update(b"\0")
    return f'"{digest.hexdigest()[:32]}"'


def named_in(header: str | None, tag: str) -> bool:
    """Whether an If-Match or If-None-Match header names `tag`, or anything by `*`.

    A weak tag counts as its strong one: a proxy that compresses makes ours weak on the way out.
    """
    if header is None:
        return False
    named = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in named or tag in named


def _code(status: int) -> str:
    return _CODES.get(status) or f"status_{status}"
