"""Secrets do not get through, whatever they stand in; what is no secret stays readable."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.redaction import (
    DEFAULT,
    REDACTED,
    Limits,
    Redaction,
    is_secret_key,
    redact,
    redact_text,
)

NEEDLE = "n33dleInTheHay"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlX2hlcmU"
BASIC = base64.b64encode(f"ann:{NEEDLE}".encode()).decode()


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Authorization",
        "set-cookie",
        "X-Api-Key",
        "accessToken",
        "refresh_token",
        "AWS_SECRET_ACCESS_KEY",
        "db.passwd",
        "userPassword",
        "dbpassword",
        "session_id",
        "apikey",
        "client_secret",
        "card.number",
        "csrf_token",
    ],
)
def test_a_name_that_tells_of_a_secret_is_known(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "task_id",
        "status",
        "token_count",
        "password_length",
        "token_type",
        "keyboard",
        "http.route",
        "",
    ],
)
def test_a_name_that_tells_of_none_is_left(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        (f"sent {JWT} to them", JWT),
        (f"sent {JWT[:30]}", JWT[:30]),
        (f"Authorization: Bearer {NEEDLE}", NEEDLE),
        (f"with bearer {NEEDLE}", NEEDLE),
        (f"token: Bearer {NEEDLE}", NEEDLE),
        (f"refresh_token=bearer {NEEDLE}&page=2", NEEDLE),
        (f"api_key: Basic {BASIC}", BASIC),
        (f"password=b'{NEEDLE}'", NEEDLE),
        (f"with Basic {BASIC}", BASIC),
        (f"postgresql+asyncpg://app:{NEEDLE}@db:5432/tasks", NEEDLE),
        (f"postgresql://app:p@{NEEDLE}@db/tasks", NEEDLE),
        (f"postgresql://app:p/{NEEDLE}#@db/tasks", NEEDLE),
        (f"redis://:{NEEDLE}@cache/0", NEEDLE),
        (f"GET /x?access_token={NEEDLE}&page=2", NEEDLE),
        (f'{{"password": "{NEEDLE} with spaces"}}', NEEDLE),
        (f'{{"password": "{NEEDLE} with spaces"}}', "spaces"),
        (f'{{\\"password\\": \\"{NEEDLE}\\"}}', NEEDLE),
        (f"User(name='ann', password='{NEEDLE}')", NEEDLE),
        (f"password={NEEDLE}, name=ann", NEEDLE),
        (f"Cookie: a=1; session={NEEDLE}", NEEDLE),
        (f"(b'cookie', b'session={NEEDLE}')", NEEDLE),
        (f"api_key => {NEEDLE}", NEEDLE),
        (f"bad token: password='{NEEDLE}'", NEEDLE),
        (f"token=abc|password='{NEEDLE}'", NEEDLE),
        (f"Pass= \nAuthorization: Digest name='ann', response='{NEEDLE}'", NEEDLE),
        (f"'token=abc=', x, password='{NEEDLE}'", NEEDLE),
        (f"Cookie: a='x', b={NEEDLE}; c='{NEEDLE}'", NEEDLE),
        (f'password = """{NEEDLE}"""', NEEDLE),
        (f'["token"]: "{NEEDLE}"', NEEDLE),
        (f"password == '{NEEDLE}'", NEEDLE),
        (f'{{"password":%20"{NEEDLE}"}}', NEEDLE),
        (f"\\notp={NEEDLE}", NEEDLE),
        ("paid with 4111 1111 1111 1111 today", "4111"),
        ("paid with 5500-0000-0000-0004", "0004"),
        ("378282246310005", "378282246310005"),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, needle: str) -> None:
    found = redact_text(text)
    assert needle not in found
    assert REDACTED in found


@pytest.mark.parametrize(
    "text",
    [
        "GET http://localhost:8000/tasks?page=2 took 3 ms",
        "http://127.0.0.1:9200/path?mail=a@example",
        "basic authentication is off",
        "4111 1111 1111 1112 fails the check",
        "1764000000123456789",
        "443036434972209201",
        "id 5c0ffee4111111111111111abcdef000",
        "the password has expired",
        "a, b, c: nothing here = fine",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


def test_addresses_go_unless_only_secrets_are_asked_to() -> None:
    text = "mail ann@example.org"
    assert redact_text(text) == f"mail {REDACTED}"
    assert Redaction(presets=("secrets",)).text(text) == text


@settings(deadline=None)
@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


_KEYS = st.sampled_from(["password", "x-api-key", "Authorization", "refreshToken", "cookie"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(_JSON, _KEYS, st.sampled_from(["dict", "list", "pair", "text", "bytes", "object"]))
def test_a_secret_under_its_name_never_gets_through(around: object, key: str, form: str) -> None:
    holder: object = {
        "dict": {key: NEEDLE},
        "list": [{key: [NEEDLE, {"x": NEEDLE}]}],
        "pair": [(key, NEEDLE)],
        "text": f"{key}={NEEDLE}",
        "bytes": [(key.encode(), NEEDLE.encode())],
        "object": MappingProxyType({key: NEEDLE}),
    }[form]
    assert NEEDLE not in json.dumps(redact({"around": around, "holder": holder}))


@settings(deadline=None)
@given(_JSON)
def test_any_value_becomes_plain_json(value: object) -> None:
    json.dumps(redact(value), allow_nan=False)


def test_a_cycle_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert redact(loop) == ["[cycle]"]


def test_depth_and_number_are_bounded() -> None:
    deep: object = "end"
    for _ in range(1000):
        deep = [deep]
    walk = DEFAULT.walk(limits=Limits(depth=3, items=2))
    assert walk.value(deep) == [[["[too deep]"]]]
    assert walk.value([1, 2, 3]) == [1, 2]
    assert walk.truncated


class _Hostile(dict[str, object]):
    def items(self):  # type: ignore[no-untyped-def] # it only raises
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class _Sly(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_object_that_fails_is_named_unreadable() -> None:
    assert redact(_Hostile()) == "[unreadable]"
    assert redact(_Sly("kept")) == "kept"


def test_common_objects_are_readable() -> None:
    assert redact(Decimal("1.50")) == "1.50"
    assert redact(Path("/a/b")) == "/a/b"
    assert redact(ValueError("wrong")) == "ValueError: wrong"
    assert redact(float("inf")) == "inf"
    assert redact(10**5000) == "[an integer of 16610 bits]"
    assert redact(b"\xff") == "\\xff"


def test_a_card_number_is_known_as_a_number() -> None:
    assert redact(4111111111111111) == REDACTED
    assert redact(1764000000123456789) == 1764000000123456789


@pytest.mark.parametrize(
    "unit",
    ["a", "tokentoken", "://a:x", '"password": "', "4111 ", "eyJ", "cookie=", "\\", "bearer "],
)
def test_hostile_text_is_searched_in_linear_time(unit: str) -> None:
    began = time.process_time()
    redact_text(unit * (16_384 // len(unit)))
    assert time.process_time() - began < 0.25
