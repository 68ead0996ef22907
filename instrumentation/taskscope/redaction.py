"""What never leaves the process: secrets are found by the name they stand under and by their shape.

Log lines and span attributes go through the same functions. They are pure, never raise, and their work is
bounded whatever they are given: depth, number of values and cycles.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias, TypeVar

__all__ = ["REDACTED", "Limits", "Plain", "Walk", "is_secret_key", "redact", "redact_text"]

REDACTED: Final = "[redacted]"
"""What stands where a secret stood."""

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
"""A value as JSON has it."""

_SECRET_WORDS: Final = frozenset(
    [
        "password",
        "passwords",
        "passwd",
        "pwd",
        "passphrase",
        "passcode",
        "secret",
        "secrets",
        "token",
        "tokens",
        "jwt",
        "authorization",
        "cookie",
        "cookies",
        "setcookie",
        "credential",
        "credentials",
        "apikey",
        "accesskey",
        "privatekey",
        "secretkey",
        "accesstoken",
        "refreshtoken",
        "clientsecret",
        "otp",
        "cvv",
        "cvc",
        "xsrf",
        "csrf",
    ]
)
_SECRET_PAIRS: Final = frozenset(
    {
        ("api", "key"),
        ("access", "key"),
        ("private", "key"),
        ("secret", "key"),
        ("signing", "key"),
        ("encryption", "key"),
        ("session", "id"),
        ("card", "number"),
    }
)
# What a name ends with when it speaks about a secret without holding it: token_count, password_length.
_ABOUT: Final = frozenset({"count", "length", "type", "policy", "valid", "expired", "present"})
_RUN_TOGETHER: Final = re.compile(r"passw|secret|credential|tokens?\Z|apikey")
"""In names written without a sign between the words, such as `dbpassword`."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_NAMED: Final = re.compile(
    r"""(?P<name>(?:passw|pwd|passphrase|passcode|secret|token|jwt|credential|api_?-?key
        |access_?-?key|private_?-?key|signing_?-?key|encryption_?-?key|session_?-?id|cvv|csrf|xsrf|otp
        |card_?-?number)[A-Za-z0-9_.\-\[\]]{0,64})
        (?P<sign>\\?["']?\s{0,4}(?:=>|[=:])\s{0,4})
        (?:[bru]?\\?"(?:[^"\\]|\\.)*(?:"|$)|[bru]?\\?'(?:[^'\\]|\\.)*(?:'|$)
        |(?:(?:bearer|basic|digest|token)[ ]{1,4})?(?!\[redacted\])[^\s"'&,;)\]}]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADER: Final = re.compile(
    r"""(?P<name>\b(?:proxy-)?authorization|\b(?:set-)?cookie)
        (?P<sign>(?:\\?["']\s{0,4}[,=:]|\s{0,4}[=:])\s{0,4})(?!\[redacted\])
        (?:[bru]?\\?"(?:[^"\\]|\\.)*(?:"|$)|[bru]?\\?'(?:[^'\\]|\\.)*(?:'|$)|[^\r\n"']+)""",
    re.IGNORECASE | re.VERBOSE,
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*){0,4}")
_BEARER: Final = re.compile(r"\b(bearer)\s{1,4}[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE)
_BASIC: Final = re.compile(r"\b(basic)\s{1,4}([A-Za-z0-9+/_\-]{4,}={0,2})", re.IGNORECASE)
# A password may itself hold @ (before the path) or / (SQLAlchemy takes it); host:port/ is no password.
_URL_LOGIN: Final = re.compile(
    r"(://[^\s:/@?#]{0,256}):(?!\d{1,5}(?:[/?#\s]|$))(?:[^\s/?#]{0,1024}@|[^\s@]{0,1024}@)"
)
_DIGITS: Final = re.compile(r"(?<![\w.])[2-6](?:[ -]?\d){12,18}(?!\w)")
_EMAIL: Final = re.compile(
    r"\b[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}"
)
_SHORTEST: Final = 6
"""No shape below is shorter, so shorter text is not searched."""


@lru_cache(maxsize=1024)
def is_secret_key(key: str) -> bool:
    """Whether a value of that name is a secret: `password`, `X-Api-Key`, `db.passwd`, `accessToken`, `set-cookie`."""
    words = [word.lower() for word in _WORD.findall(key[:256])]
    if not words or words[-1] in _ABOUT:
        return False
    pairs = itertools.pairwise(words)
    return (
        not _SECRET_WORDS.isdisjoint(words)
        or any(_RUN_TOGETHER.search(word) for word in words)
        or any(pair in _SECRET_PAIRS for pair in pairs)
    )


def redact_text(text: str, *, emails: bool = False) -> str:
    """The text with tokens, passwords, cookies, logins in URLs and card numbers replaced.

    emails: whether addresses are replaced as well. Applying it twice changes nothing more.
    """
    if len(text) < _SHORTEST:
        return text
    if ":" in text or "=" in text or "," in text:
        text = _URL_LOGIN.sub(rf"\1:{REDACTED}@", text)
        text = _HEADER.sub(rf"\g<name>\g<sign>{REDACTED}", text)
        text = _NAMED.sub(_hide_named, text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    lower = text.lower()
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    if "basic" in lower:
        text = _BASIC.sub(_hide_basic, text)
    text = _DIGITS.sub(_hide_card, text)
    return _EMAIL.sub(REDACTED, text) if emails and "@" in text else text


def _hide_named(found: re.Match[str]) -> str:
    if not is_secret_key(found["name"]):
        return found[0]
    return f"{found['name']}{found['sign']}{REDACTED}"


def _hide_basic(found: re.Match[str]) -> str:
    # "basic authentication" is prose; a login is base64 of name:password.
    packed = found[2].rstrip("=")
    try:
        opened = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return found[0]
    return f"{found[1]} {REDACTED}" if b":" in opened else found[0]


def _hide_card(found: re.Match[str]) -> str:
    digits = [int(sign) for sign in found[0] if sign.isdigit()]
    return REDACTED if _luhn(digits) else found[0]


def _luhn(digits: list[int]) -> bool:
    doubled = (d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a value is read: nesting, items of one container, values in all, characters of a key."""

    depth: int = 6
    items: int = 64
    values: int = 512
    key: int = 128


_LIMITS: Final = Limits()
_T = TypeVar("_T")
_DEEP: Final = "[too deep]"
_CYCLE: Final = "[cycle]"
_UNREADABLE: Final = "[unreadable]"
_INT64: Final = 63
_FIRST_CARD: Final = 10**12
"""Of bare numbers only those with a card's 13 digits or more can be a secret: nothing below is searched."""


class Walk:
    """One walk over a value; makes a plain copy without its secrets.

    text: what is done to every string and key. secret: whether a name hides its value.
    `truncated` is true afterwards if anything was left out.
    """

    __slots__ = ("_limits", "_open", "_secret", "_text", "_values", "truncated")

    def __init__(
        self,
        *,
        text: Callable[[str], str] = redact_text,
        secret: Callable[[str], bool] = is_secret_key,
        limits: Limits = _LIMITS,
    ) -> None:
        self._text = text
        self._secret = secret
        self._limits = limits
        self._values = 0
        self._open: set[int] = set()
        self.truncated = False

    def named(self, key: str, value: object) -> Plain:
        """The plain copy of a value that stands under `key`. Never raises."""
        if value is None or isinstance(value, bool):
            return value
        return REDACTED if self._secret(key) else self.value(value)

    def value(self, value: object, depth: int = 0) -> Plain:
        """The plain copy of a value. Never raises: what cannot be read says so."""
        self._values += 1
        if self._values > self._limits.values:
            self.truncated = True
            return "[too many]"
        if type(value) is str:
            return self._text(value)
        if value is None or value is True or value is False:
            return value
        try:
            return self._other(value, depth)
        except Exception:  # noqa: BLE001 # any object may come, and its methods may do anything
            return _UNREADABLE

    def key(self, key: object) -> str:
        """A key as text, cut to the limit. Never raises."""
        try:
            text = _string(key)
        except Exception:  # noqa: BLE001 # as above
            return _UNREADABLE
        if len(text) > self._limits.key:
            self.truncated = True
            text = text[: self._limits.key]
        return self._text(text)

    def _other(self, value: object, depth: int) -> Plain:
        if isinstance(value, Enum):
            return self.value(value.value, depth)
        if isinstance(value, int):
            return self._number(int.__index__(value))
        if isinstance(value, float):
            return self._float(float.__add__(value, 0.0))
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._container(value, depth)
        return self._text(_string(value))

    def _number(self, number: int) -> Plain:
        if number.bit_length() > _INT64:
            return f"[an integer of {number.bit_length()} bits]"
        if number < _FIRST_CARD:
            return number
        text = str(number)
        return number if self._text(text) == text else REDACTED

    def _float(self, number: float) -> Plain:
        return number if number - number == 0 else str(number)

    def _container(
        self,
        value: Mapping[object, object]
        | list[object]
        | tuple[object, ...]
        | set[object]
        | frozenset[object],
        depth: int,
    ) -> Plain:
        if id(value) in self._open:
            self.truncated = True
            return _CYCLE
        if depth >= self._limits.depth:
            self.truncated = True
            return _DEEP
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            return self._sequence(value, depth + 1)
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, Plain]:
        copy: dict[str, Plain] = {}
        for key, inside in self._first(value.items()):
            name = self.key(key)
            hidden = self._secret(name) and not isinstance(inside, bool | None)
            copy[name] = REDACTED if hidden else self.value(inside, depth)
        return copy

    def _sequence(self, value: Iterable[object], depth: int) -> list[Plain]:
        items = list(self._first(value))
        # ("authorization", "Bearer …") is how headers come from ASGI and from HTTP clients.
        if len(items) == 2 and isinstance(items[0], str | bytes):
            name = self.key(items[0])
            if self._secret(name) and isinstance(items[1], str | bytes):
                return [name, REDACTED]
        return [self.value(item, depth) for item in items]

    def _first(self, items: Iterable[_T]) -> Iterable[_T]:
        for count, item in enumerate(items):
            if count >= self._limits.items or self._values >= self._limits.values:
                self.truncated = True
                return
            yield item


def redact(value: object, *, key: str = "", emails: bool = False) -> Plain:
    """A plain, bounded copy of `value` without its secrets; `key` is the name it stands under, if any.

    Never raises; depth, items and cycles are bounded by `Limits`.
    """
    walk = Walk(text=lambda text: redact_text(text, emails=emails))
    return walk.named(key, value) if key else walk.value(value)


def _string(value: object) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str.__str__(str(value))
