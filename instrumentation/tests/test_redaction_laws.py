"""What holds of every text and preset: settled at once, never raises, in linear time; secrets go, the rest stays."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from taskscope.redaction import PRESETS, REDACTED, Redaction, redact, redact_text
from taskscope.testing.needles import NEEDLES, Needle, hidden_by

EACH = {name: Redaction(presets=(name,)) for name in PRESETS}
OWN = Redaction(
    presets=("pci", "gdpr"), keys=("customer_no",), patterns=(r"\bACC-\d{4,8}\b", r"(?i)pin \d{4}")
)
ALL = [*EACH.values(), OWN]
presets = st.sampled_from(ALL)

# Pieces of what the patterns look for meet each other in ways that plain text never does.
PIECES = (
    "password=", '"token": "', "'", '"', "\\", "\\n", "://", "@", ":", "bearer ", "Basic ", "eyJ", "%3A", "%", "+",
    "%2525", "4111 1111 1111 1111", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "[redacted]", "[",
    "{", ")", "}", ", ", "cookie: ", "input_value=", "'loc': ('input'", "INSERT INTO a (password) VALUES (", "--token ",
    "Key (a)=(", "a@b.de", "DE89370400440532013000", "+49 30 901820", "1.2.3.4", "::1", "\n", "\u2028", "\x1b[2J",
    "\ud800", "x", "7", " ", "&", "<secret>", "none", "ACC-12345", "[parameters: (",
)  # fmt: skip
texts = st.text(st.characters(), max_size=200) | st.lists(
    st.sampled_from(PIECES) | st.text(max_size=4), max_size=30
).map("".join)


@settings(deadline=None, max_examples=300)
@given(texts, presets)
def test_twice_changes_nothing_more(text: str, redaction: Redaction) -> None:
    once = redaction.text(text)
    assert redaction.text(once) == once


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(NEEDLES), texts, texts, st.sampled_from(["default", "pci", "gdpr", "strict"])
)
def test_a_secret_goes_whatever_stands_around_it(
    needle: Needle, before: str, after: str, preset: str
) -> None:
    if needle in hidden_by(preset):
        assume(not any(secret in before + after for secret in needle.secret))
        found = EACH[preset].text(f"{before} \n{needle.text}\n {after}")
        assert not any(secret in found for secret in needle.secret)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N"]), max_size=12), st.sampled_from(["_", "", "-"]))
@example("3D", "")
def test_a_token_goes_even_within_a_word(word: str, sign: str) -> None:
    for needle in NEEDLES:
        if needle.name in ("jwt", "login of a dsn", "private key"):
            found = redact_text(f"{word}{sign}{needle.text}")
            assert not any(secret in found for secret in needle.secret)


@dataclass
class Held:
    """A value within an object."""

    inside: object


def containers(value: object) -> dict[str, object]:
    return {
        "list": [value],
        "tuple": (1, value, 2),
        "set": {value},
        "dict": {"note": value},
        "deep": [{"a": ({"b": [value]},)}],
    }


def leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [each for key, inside in value.items() for each in (key, *leaves(inside))]
    if isinstance(value, list):
        return [each for inside in value for each in leaves(inside)]
    return [value] if isinstance(value, str) else []


@settings(deadline=None)
@given(texts, presets)
def test_a_text_is_the_same_in_any_container(text: str, redaction: Redaction) -> None:
    alone = redaction.text(text)
    for held in containers(text).values():
        assert alone in leaves(redaction.redact(held))
    assert redaction.text(text[:40]) in leaves(redaction.redact({text[:40]: 1}))


@pytest.mark.parametrize("needle", hidden_by("default"), ids=lambda needle: needle.name)
def test_a_secret_goes_in_any_form(needle: Needle) -> None:
    forms = [
        needle.text.encode(),
        bytearray(needle.text.encode()),
        Held(needle.text),
        [Held({"note": [needle.text]})],
        ValueError(needle.text),
        {needle.text: {needle.text: 1}},
        {"note": frozenset({needle.text})},
    ]
    told = json.dumps([redact(form) for form in forms], ensure_ascii=False)
    assert not any(secret in told for secret in needle.secret)


@pytest.mark.parametrize(
    "held",
    [
        {"name": "password", "value": "n33dle"},
        {"key": "X-Api-Key", "value": ["n33dle"]},
        {"type": "missing", "loc": ["body", "title"], "input": {"title": "n33dle"}},
        {"a": [["authorization", "n33dle"]]},
        {"headers": ((b"cookie", b"n33dle"),)},
        {"dbPassword": {"a": "n33dle"}},
        4111111111111111,
        -4111111111111111,
        4111111111111111.0,
    ],
    ids=str,
)
def test_a_secret_that_its_neighbour_names_goes(held: object) -> None:
    told = json.dumps(redact(held))
    assert REDACTED in told
    assert "n33dle" not in told
    assert "4111" not in told


@settings(deadline=None)
@given(st.integers(0, 10**19), st.uuids(), st.floats(0, 1e6), st.binary(min_size=16, max_size=32))
def test_ids_durations_paths_and_numbers_stay(
    number: int, own: UUID, seconds: float, trace: bytes
) -> None:
    harmless = [
        str(number * 10 + wrong_digit(number)),
        str(own),
        own.hex,
        trace.hex(),
        f"{seconds:.3f}s",
        f"/tasks/{own}/comments/{number % 10**9}",
        "2026-11-24T13:34:18.123456Z",
        f"took {seconds:.1f} ms, {number % 1000} rows",
        "taskscope/redaction/rules.py:120",
    ]
    assert redact(harmless) == harmless
    assert redact([number % 10**12, seconds, True, None]) == [number % 10**12, seconds, True, None]


def wrong_digit(number: int) -> int:
    """A last digit with which the Luhn check fails."""
    digits = [int(sign) for sign in str(number)][::-1]
    total = sum(
        (d * 2 - 9 if d > 4 else d * 2) if at % 2 == 0 else d for at, d in enumerate(digits)
    )
    return (11 - total % 10) % 10


@pytest.mark.parametrize(
    "text",
    [
        "GET http://localhost:8000/tasks?page=2&sort=-created took 3 ms",
        "the password has expired",
        "token: None",
        "password=null&page=2",
        "token_count=7, password_length: 12, token_type=opaque",
        "left-pad@1.3.0 was installed",
        "user@localhost",
        "12:30:45 on 2026-11-24",
        "price 4111 1111 USD",
        "basic authentication is off",
        "a bearer of news",
        "std::vector<int>",
        "100% done, 50+ more",
        "C:\\tasks\\new",
        "tokenizer='fast'",
        "1764000000123456789",
        "0.4111111111111111",
    ],
)
def test_what_is_harmless_stays(text: str) -> None:
    assert redact_text(text) == text


UNITS = (
    *(piece for piece in PIECES if len(piece) > 1), "a", " ", "7", "4111 ", "\\", "'", '"', "(", "a.", "a@", ":a",
    "://a:", "%25", "+", "token ", "token'", "ab-", "-----BEGIN ", "x=\\\"", "1:", "+4", "0", "DE89", "eyJa.", "--a ",
    "insert into ", "a=[", "password={", "password='a' ", "p=1,",
)  # fmt: skip


@pytest.mark.parametrize("preset", ["default", "strict"])
def test_time_grows_with_the_length_alone(preset: str) -> None:
    """Four times the text takes four times as long, with room for a busy machine; 8 KiB take 50 ms at most."""
    slow = []
    for unit in UNITS:
        short, long = (timed(EACH[preset], unit * (size // len(unit))) for size in (2_048, 8_192))
        if long > 0.05 or long > 8 * short + 0.004:
            slow.append((unit, short, long))
    assert slow == []


def timed(redaction: Redaction, text: str) -> float:
    best = 1e9
    for _ in range(2):
        began = time.thread_time()
        redaction.text(text)
        best = min(best, time.thread_time() - began)
    return best
