"""Passwords and tokens: what proves that a caller is who they say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeVar
from uuid import UUID

import jwt
from pwdlib import PasswordHash
from pwdlib.exceptions import PwdlibError
from pwdlib.hashers.argon2 import Argon2Hasher

from taskscope_taskapi.problems import overloaded, unauthorized
from taskscope_taskapi.settings import Settings

__all__ = ["Claims", "Passwords", "TokenMaker", "digest"]

_ALGORITHM: Final = "HS256"
_AT_ONCE: Final = 4
_MEMORY_KIB: Final = 19 * 1024
_PASSES: Final = 2
_LONGEST_TOKEN: Final = 2048
_LEEWAY_S: Final = 5
_HEADER_TYPE: Final[dict[str, str]] = {"access": "at+jwt", "refresh": "rt+jwt"}

TokenType = Literal["access", "refresh"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token that was checked says. expires: seconds since 1970."""

    user_id: UUID
    token_id: str
    expires: int


def digest(token: str) -> str:
    """What is stored of a refresh token: enough to know it again, too little to use it."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenMaker:
    """Issues and checks tokens of one algorithm, one key, one issuer and one audience."""

    def __init__(
        self, settings: Settings, key: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._issuer = settings.issuer
        self._audience = settings.audience
        self._clock = clock
        self._life_s: dict[str, int] = {"access": settings.access_s, "refresh": settings.refresh_s}

    def life_s(self, kind: TokenType) -> int:
        """How many seconds a token of that kind lives."""
        return self._life_s[kind]

    def issue(self, user_id: UUID, kind: TokenType) -> str:
        """A signed token for the user."""
        now = int(self._clock())
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "iat": now,
            "exp": now + self._life_s[kind],
            "jti": secrets.token_hex(16),
            "type": kind,
        }
        return jwt.encode(
            claims, self._key, algorithm=_ALGORITHM, headers={"typ": _HEADER_TYPE[kind]}
        )

    def check(self, token: str, kind: TokenType) -> Claims:
        """What the token says. Raises Problem (401) unless it is ours, whole, in time and of that kind.

        The header must be exactly the one that is issued: no key id, key or URL of a stranger is ever looked at.
        """
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise unauthorized("The token is not one of ours.")
        try:
            header = jwt.get_unverified_header(token)
            if header != {"alg": _ALGORITHM, "typ": _HEADER_TYPE[kind]}:
                raise unauthorized("The token is not of the kind that is wanted here.")
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"]},
            )
            if claims.get("type") != kind:
                raise unauthorized("The token is not of the kind that is wanted here.")
            return Claims(
                user_id=UUID(str(claims["sub"])),
                token_id=str(claims["jti"]),
                expires=int(claims["exp"]),
            )
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("The token has expired; log in or refresh it.") from error
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise unauthorized("The token is not one of ours.") from error


class Passwords:
    """Argon2id at OWASP's parameters (19 MiB, two passes, one lane: 15 ms), off the event loop, four at once."""

    def __init__(self, *, wait_s: float) -> None:
        self._hash = PasswordHash(
            (Argon2Hasher(memory_cost=_MEMORY_KIB, time_cost=_PASSES, parallelism=1),)
        )
        self._wait_s = wait_s
        self._slots = asyncio.Semaphore(_AT_ONCE)
        # Threads of its own: one that outlives a cancelled request still holds one of the four places.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="password")
        self._nobodys = _hash_of_nothing()

    async def hash(self, password: str) -> str:
        """The hash to store. Raises Problem (503) when all places are taken."""
        return await self._run(lambda: self._hash.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one; an unknown user costs the same work as a known one.

        Raises Problem (503) when all places are taken.
        """
        return await self._run(lambda: self._verified(password, stored or self._nobodys)) and (
            stored is not None
        )

    def close(self) -> None:
        """The threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verified(self, password: str, stored: str) -> bool:
        try:
            return self._hash.verify(password, stored)
        except PwdlibError:
            return False

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise overloaded("Too many passwords are being checked now; try again.") from error
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._slots.release()


def _hash_of_nothing() -> str:
    """A hash that no password has: to check one against it is the whole work, and in vain."""
    salt, digits = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32)
    )
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p=1${salt}${digits}"
