"""Every refusal that a handler may raise."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

__all__ = ["Problem", "overloaded", "too_many", "unauthorized"]


class Problem(Exception):  # noqa: N818 # an answer, not an error of the program
    """For the caller of the API: the status, a code for programs and a sentence for people."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


def unauthorized(message: str, *, error: str = "invalid_token") -> Problem:
    """401 with the challenge of RFC 6750."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        message,
        headers={"WWW-Authenticate": f'Bearer realm="taskapi", error="{error}"'},
    )


def overloaded(message: str, *, after_s: int = 1) -> Problem:
    """503 that says when to come again."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        message,
        code="overloaded",
        headers={"Retry-After": str(after_s)},
    )


def too_many(message: str, *, headers: Mapping[str, str] | None = None) -> Problem:
    """429; headers: what the limit's verdict tells."""
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, message, code="rate_limited", headers=headers)
