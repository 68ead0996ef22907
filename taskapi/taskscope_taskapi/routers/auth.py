"""Register, log in, and change a refresh token for a new pair."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from uuid import UUID, uuid4

from fastapi import APIRouter, Response
from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

import taskscope
from taskscope_taskapi.envelope import Envelope, answer
from taskscope_taskapi.models import RefreshToken, User, now
from taskscope_taskapi.problems import Problem, too_many, unauthorized
from taskscope_taskapi.schemas import Credentials, Refresh, Registration, Tokens, UserView
from taskscope_taskapi.security import TokenMaker, digest
from taskscope_taskapi.service import Running, Service, StrictRoute

__all__ = ["router"]

router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)
_log = taskscope.get_logger(__name__)


@router.post("/register", status_code=HTTPStatus.CREATED, response_model=Envelope[UserView])
async def register(wanted: Registration, service: Running) -> Response:
    """An account exists; 409 when the name or the address is taken."""
    async with service.database.reading() as session:
        taken = await session.scalar(
            select(User.id).where(or_(User.username == wanted.username, User.email == wanted.email))
        )
    if taken is not None:
        raise _taken()
    hashed = await service.passwords.hash(wanted.password.get_secret_value())
    user = User(username=wanted.username, email=wanted.email, password_hash=hashed)
    try:
        async with service.database.writing() as session:
            session.add(user)
    except IntegrityError as error:
        raise _taken() from error
    service.business.users_registered.inc()
    service.audit.record("user.registered", user=str(user.id), target=str(user.id))
    _log.info("user registered", user_id=str(user.id))
    return answer(
        UserView.model_validate(user),
        status=HTTPStatus.CREATED,
        headers={"Location": "/api/v1/users/me", "Cache-Control": "no-store"},
    )


@router.post("/login", response_model=Envelope[Tokens])
async def login(given: Credentials, service: Running) -> Response:
    """A new pair of tokens; 401 for a wrong name or password alike."""
    async with service.database.reading() as session:
        user = await session.scalar(
            select(User).where(or_(User.username == given.username, User.email == given.username))
        )
    await _prove(service, user, given)
    if user is None:  # never after `_prove`; it tells the type checker
        raise _wrong()
    taskscope.set_user(str(user.id))
    async with service.database.writing() as session:
        await session.execute(
            delete(RefreshToken).where(
                RefreshToken.user_id == user.id, RefreshToken.expires_at < now()
            )
        )
        pair = _issue(session, service.tokens, user.id, family=uuid4())
    service.business.logins.inc(result="success")
    service.audit.record("user.login")
    return answer(pair)


async def _prove(service: Service, user: User | None, given: Credentials) -> None:
    """The length was checked by the schema; the limit comes second, the hash third."""
    logins = service.business.logins
    account = str(user.id) if user is not None else f"unknown {given.username}"
    verdict = await service.accounts.admit(account)
    if not verdict.admitted:
        logins.inc(result="rate_limited")
        _refused(service, account, "rate_limited")
        raise too_many(
            "Too many failed logins of this account; wait until the window ends.",
            headers=verdict.headers,
        )
    try:
        proven = await service.passwords.verify(
            given.password.get_secret_value(), user.password_hash if user is not None else None
        )
    except Problem:
        logins.inc(result="overloaded")
        raise
    if not proven:
        logins.inc(result="bad_credentials")
        _refused(service, account, "bad_credentials")
        _log.info("login refused", user_id=str(user.id) if user is not None else None)
        raise _wrong()
    await service.accounts.forget(account)


def _refused(service: Service, account: str, reason: str) -> None:
    """Of a name that no account has only the hash is kept: enough to see that one name is tried again and again."""
    service.audit.record("user.login", outcome="failure", user=account, reason=reason)


@router.post("/refresh", response_model=Envelope[Tokens])
async def refresh(given: Refresh, service: Running) -> Response:
    """A new pair for a refresh token, which is then used up.

    One that was used before has been stolen, from or by the caller: all of its family end.
    """
    token = given.refresh_token.get_secret_value()
    claims = service.tokens.check(token, "refresh")
    taskscope.set_user(str(claims.user_id))
    async with service.database.writing() as session:
        used = await session.execute(
            update(RefreshToken)
            .where(
                RefreshToken.digest == digest(token),
                RefreshToken.user_id == claims.user_id,
                RefreshToken.used_at.is_(None),
                RefreshToken.revoked_at.is_(None),
                RefreshToken.expires_at > now(),
            )
            .values(used_at=now())
            .returning(RefreshToken.family)
        )
        family = used.scalar_one_or_none()
        if family is not None:
            return answer(_issue(session, service.tokens, claims.user_id, family=family))
        revoked = await _revoke(session, token)
    if revoked:
        _log.warning("refresh token reused, family revoked", user_id=str(claims.user_id))
        service.audit.record("session.revoked", reason="refresh_token_reused")
    raise unauthorized("The refresh token was used or revoked; log in again.")


async def _revoke(session: AsyncSession, token: str) -> bool:
    family = select(RefreshToken.family).where(RefreshToken.digest == digest(token))
    ended = await session.execute(
        update(RefreshToken)
        .where(RefreshToken.family.in_(family), RefreshToken.revoked_at.is_(None))
        .values(revoked_at=now())
        .returning(RefreshToken.digest)
        .execution_options(synchronize_session=False)
    )
    return ended.first() is not None


def _issue(session: AsyncSession, tokens: TokenMaker, user_id: UUID, *, family: UUID) -> Tokens:
    pair = Tokens(
        access_token=tokens.issue(user_id, "access"),
        refresh_token=tokens.issue(user_id, "refresh"),
        expires_in=tokens.life_s("access"),
    )
    session.add(
        RefreshToken(
            digest=digest(pair.refresh_token),
            family=family,
            user_id=user_id,
            expires_at=now() + timedelta(seconds=tokens.life_s("refresh")),
        )
    )
    return pair


def _taken() -> Problem:
    return Problem(HTTPStatus.CONFLICT, "The username or the e-mail address is taken.")


def _wrong() -> Problem:
    return unauthorized("The username or the password is wrong.", error="invalid_credentials")
