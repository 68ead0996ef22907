"""How each exception that a route may meet becomes an answer in the envelope."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from taskscope.routing.route import route_template
from taskscope_taskapi.database import DatabaseUnavailable
from taskscope_taskapi.envelope import failure
from taskscope_taskapi.problems import Problem
from taskscope_taskapi.service import admit

__all__ = ["answer_problems"]

_MOST_DETAILS = 20
_UNROUTED: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


def answer_problems(app: FastAPI) -> None:
    """Every exception that a route may meet, but a bug, is answered in the envelope."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DatabaseUnavailable, _unavailable)


async def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001 # Starlette's signature
    if not isinstance(error, Problem):
        raise error
    return failure(error.status, error.message, code=error.code, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Says where and why, never what: the input may be a password."""
    if not isinstance(error, RequestValidationError):
        raise error
    details = [
        {
            "field": ".".join(str(part) for part in fault["loc"])[:200],
            "reason": str(fault["type"]),
            "message": str(fault["msg"])[:200],
        }
        for fault in error.errors()[:_MOST_DETAILS]
    ]
    return failure(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request is not as it must be; see details.",
        code="validation_error",
        details=details,
    )


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code in _UNROUTED:
        try:
            await admit(request)  # no route has counted the client
        except Problem as problem:
            return await _problem(request, problem)
    message, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = "There is nothing at this path."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"This path does not take {request.method[:16]}."
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
    return failure(error.status_code, message, headers=headers)


def _allowed(request: Request) -> str:
    """All methods of the path; the router knows only those of the first route that it tried."""
    app: FastAPI = request.app
    operations = app.openapi()["paths"].get(route_template(app, request.scope), {})
    methods = {method.upper() for method in operations}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


async def _unavailable(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return failure(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database does not answer now; try again.",
        code="database_unavailable",
        headers={"Retry-After": "1"},
    )
