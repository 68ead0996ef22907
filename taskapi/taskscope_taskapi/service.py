"""The parts of one running instance, and how a request finds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic_core import from_json

import taskscope
from taskscope_taskapi.addresses import client_address, client_key
from taskscope_taskapi.database import Database
from taskscope_taskapi.limits import Limiter
from taskscope_taskapi.problems import Problem, too_many
from taskscope_taskapi.responding import RATE_LIMIT_STATE
from taskscope_taskapi.security import Passwords, TokenMaker
from taskscope_taskapi.settings import Settings

__all__ = [
    "Audit",
    "Business",
    "Counter",
    "Gauge",
    "Running",
    "Service",
    "StrictRoute",
    "UserId",
    "admit",
    "running",
]


class Counter(Protocol):
    """A declared counter."""

    def inc(self, amount: float = 1, **labels: str) -> None:
        """It rose by `amount`."""


class Audit(Protocol):
    """The audit trail."""

    def record(
        self,
        action: str,
        /,
        *,
        outcome: Literal["success", "failure", "unknown"] = "success",
        user: str | None = None,
        target: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Who did what is on disk, or is counted as not stored; never raises."""


class Gauge(Protocol):
    """A declared gauge."""

    def set(self, value: float, **labels: str) -> None:
        """It stands at `value`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Business:
    """The metrics of `catalogue`, made once."""

    tasks_created: Counter
    tasks_completed: Counter
    tasks_deleted: Counter
    tasks_open: Gauge
    users_registered: Counter
    logins: Counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What handlers work with; one for each application."""

    settings: Settings
    database: Database
    tokens: TokenMaker
    passwords: Passwords
    clients: Limiter
    accounts: Limiter
    business: Business
    audit: Audit


def running(request: Request) -> Service:
    """The service that answers the request."""
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(running)]

_MOST_FIELDS: Final = 64
_bearer = HTTPBearer(auto_error=False, description="An access token.")


def _user_id(
    service: Running, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> UUID:
    if credentials is None:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "Log in first and send the access token as Authorization: Bearer.",
            headers={"WWW-Authenticate": 'Bearer realm="taskapi"'},
        )
    user_id = service.tokens.check(credentials.credentials, "access").user_id
    taskscope.set_user(str(user_id))
    return user_id


UserId = Annotated[UUID, Depends(_user_id)]
"""The user whose access token came with the request."""


async def admit(request: Request) -> None:
    """The request's client was counted, and its answer will tell the limit. Raises Problem (429) over the limit."""
    service = running(request)
    address = client_address(
        request.client.host if request.client else None,
        request.headers.getlist("x-forwarded-for"),
        service.settings.trusted_proxies,
    )
    verdict = await service.clients.admit(client_key(address))
    setattr(request.state, RATE_LIMIT_STATE, verdict.headers)
    if not verdict.admitted:
        raise too_many("Too many requests; wait until the window ends.")


class _StrictRequest(Request):
    async def json(self) -> object:
        """The body as values. A number of many digits or a deep nest is refused before it costs anything."""
        body = await self.body()
        try:
            found: object = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error
        if isinstance(found, dict) and len(found) > _MOST_FIELDS:
            # Each unknown field would become an error of its own: 50,000 of them took 0.35 s.
            raise json.JSONDecodeError("too many fields", "", 0)
        return found


class StrictRoute(APIRoute):
    """A route that counts its client before it reads a byte of the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """The route's handler behind the limit."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            await admit(request)
            return await inner(_StrictRequest(request.scope, request.receive))

        return handler
