"""Passwords and tokens under attack."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from taskscope_taskapi.problems import Problem
from taskscope_taskapi.security import Passwords, TokenMaker, digest
from taskscope_taskapi.settings import Settings

pytestmark = pytest.mark.anyio

KEY = b"0123456789abcdef" * 4
USER = UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def tokens(settings: Settings) -> TokenMaker:
    return TokenMaker(settings, KEY)


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    whole: dict[str, object] = {
        "iss": "taskscope-taskapi",
        "aud": "taskscope-taskapi",
        "sub": str(USER),
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        "type": "access",
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


def signed(
    *,
    key: bytes = KEY,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
    **changes: object,
) -> str:
    return jwt.encode(
        claims(**changes), key, algorithm=algorithm, headers={"typ": "at+jwt", **(header or {})}
    )


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned() -> str:
    return f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(claims())}."


def with_public_key_as_secret() -> str:
    """HS/RS confusion: the attacker signs with what everybody knows."""
    head = f"{part({'alg': 'RS256', 'typ': 'at+jwt'})}.{part(claims())}"
    mac = hmac.new(b"-----BEGIN PUBLIC KEY-----", head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def test_a_token_of_ours_is_believed(tokens: TokenMaker) -> None:
    assert tokens.check(tokens.issue(USER, "access"), "access").user_id == USER


def test_the_forgeries_below_differ_from_a_good_token_only_in_what_they_name(
    tokens: TokenMaker,
) -> None:
    assert tokens.check(signed(), "access").user_id == USER


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(unsigned(), id="algorithm none"),
        pytest.param(with_public_key_as_secret(), id="public key as secret"),
        pytest.param(signed(algorithm="HS512"), id="another algorithm"),
        pytest.param(signed(key=b"x" * 64), id="another key"),
        pytest.param(signed(aud="other"), id="another audience"),
        pytest.param(signed(iss="other"), id="another issuer"),
        pytest.param(signed(type="refresh"), id="refresh claims as access"),
        pytest.param(signed(header={"typ": "JWT"}), id="untyped"),
        pytest.param(signed(header={"kid": "../../dev/null"}), id="key id"),
        pytest.param(signed(header={"jku": "http://attacker.example"}), id="key url"),
        pytest.param(signed(header={"crit": ["b64"], "b64": False}), id="critical extension"),
        pytest.param(signed(exp=int(time.time()) - 60), id="expired"),
        pytest.param(signed(exp=None), id="without expiry"),
        pytest.param(signed(aud=None), id="without audience"),
        pytest.param(signed(iss=None), id="without issuer"),
        pytest.param(signed(sub=None), id="without subject"),
        pytest.param(signed(sub="1 OR 1=1"), id="subject is no id"),
        pytest.param(signed(iat=int(time.time()) + 3600), id="from the future"),
        pytest.param(signed()[:-2], id="cut"),
        pytest.param(signed(extra="x" * 4000), id="too long"),
        pytest.param("a.b.c", id="nonsense"),
        pytest.param("", id="empty"),
        pytest.param("é.é.é", id="not ASCII"),
    ],
)
def test_a_forged_token_is_refused(tokens: TokenMaker, forged: str) -> None:
    with pytest.raises(Problem) as refused:
        tokens.check(forged, "access")
    assert refused.value.status == 401
    assert "WWW-Authenticate" in refused.value.headers


@pytest.mark.parametrize(("issued", "taken"), [("refresh", "access"), ("access", "refresh")])
def test_a_token_of_one_kind_is_not_taken_for_the_other(
    tokens: TokenMaker, issued: Any, taken: Any
) -> None:
    with pytest.raises(Problem):
        tokens.check(tokens.issue(USER, issued), taken)


def test_an_access_token_ends_after_its_fifteen_minutes(settings: Settings) -> None:
    old = TokenMaker(settings, KEY, clock=lambda: time.time() - 15 * 60 - 10)
    with pytest.raises(Problem, match="expired"):
        old.check(old.issue(USER, "access"), "access")


def test_no_two_tokens_are_alike(tokens: TokenMaker) -> None:
    made = {tokens.issue(USER, "refresh") for _ in range(100)}
    assert len({digest(token) for token in made}) == 100


async def test_a_password_is_known_again() -> None:
    passwords = Passwords(wait_s=5)
    stored = await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", stored)
    assert not await passwords.verify("wrong horse", stored)
    assert not await passwords.verify("correct horse", None)
    passwords.close()


async def test_the_hash_has_the_parameters_of_owasp() -> None:
    passwords = Passwords(wait_s=5)
    assert (await passwords.hash("x" * 8)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    passwords.close()


async def test_an_unknown_user_costs_a_whole_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    verify = Argon2Hasher.verify

    def noting(self: Argon2Hasher, password: str | bytes, hash: str | bytes) -> bool:  # noqa: A002
        verified.append(str(hash)[:31])
        return verify(self, password, hash)

    monkeypatch.setattr(Argon2Hasher, "verify", noting)
    passwords = Passwords(wait_s=5)
    await passwords.verify("whatever", None)
    assert verified == ["$argon2id$v=19$m=19456,t=2,p=1$"]
    passwords.close()


class _Slow:
    """Stands for the hash: waits until the test lets it go, and notes how many wait with it."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def hash(self, password: str) -> str:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.go.wait(10)
        with self._lock:
            self.at_once -= 1
        return password


async def test_four_passwords_are_hashed_at_once_and_the_fifth_is_told_to_come_again() -> None:
    passwords, slow = Passwords(wait_s=0), _Slow()
    passwords._hash = slow  # type: ignore[assignment] # the machine's speed must not decide the test
    running = [asyncio.create_task(passwords.hash(str(uuid4()))) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Problem) as refused:
        await passwords.hash("one more")
    slow.go.set()
    await asyncio.gather(*running)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    assert slow.most <= 4
    passwords.close()
