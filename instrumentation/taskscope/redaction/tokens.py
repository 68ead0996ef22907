"""Secrets that are known by their own shape, whatever stands around them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from taskscope.redaction.named import MARK

__all__ = ["hide_keys", "hide_random", "hide_tokens"]

_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*){0,4}")
_BEARER: Final = re.compile(r"(bearer)([\s+]{1,4})[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE)
_BASIC: Final = re.compile(r"(basic)([\s+]{1,4})([A-Za-z0-9+/_\-]{4,}={0,2})", re.IGNORECASE)
# A user's name or password may itself hold @ (before the path) or / (SQLAlchemy takes it); host:port/ is none.
_URL_LOGIN: Final = re.compile(
    r"(://[^\s:/?#]{0,256}):(?!\d{1,5}(?:[/?#\s]|$))(?:[^\s/?#]{0,1024}@|[^\s@]{0,1024}@)"
)
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END)[\s\S])*+"
    r"(?:-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----)?"
)
# What is left of a block whose beginning was cut off.
_REST_OF_KEY: Final = re.compile(
    r"\A(?:(?!-----BEGIN)[\s\S])*+-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
)
_PROVIDER: Final = re.compile(
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|gh[oprsu]_[A-Za-z0-9]{20,255}|github_pat_\w{20,255}|glpat-[\w\-]{16,64}"
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,255}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,255}|sk-[\w\-]{20,255}"
    r"|AIza[\w\-]{35}|npm_[A-Za-z0-9]{36}|SG\.[\w\-]{16,64}\.[\w\-]{16,64}|hv[bs]\.[\w\-]{20,255}"
)
_RANDOM: Final = re.compile(r"[A-Za-z0-9+_\-]{32,}+={0,2}|(?<![\w/+])[A-Za-z0-9+/]{40}(?![\w/+])")
_KINDS: Final = (re.compile(r"[A-Z]"), re.compile(r"[a-z]"), re.compile(r"\d"))


def hide_keys(text: str) -> str:
    """The text without blocks of private keys. It comes first: anything else found in a block would break it up."""
    return _REST_OF_KEY.sub(MARK, _PRIVATE_KEY.sub(MARK, text)) if "-----" in text else text


def hide_tokens(text: str) -> str:
    """The text without tokens, logins in URLs and keys of well-known providers."""
    if "://" in text:
        text = _URL_LOGIN.sub(rf"\1:{MARK}@", text)
    lower = text.lower()
    capitals = lower != text
    if capitals and "eyJ" in text:
        text = _JWT.sub(MARK, text)
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1\2{MARK}", text)
    if "basic" in lower:
        text = _BASIC.sub(_hide_basic, text)
    # To look for each of these costs a fiftieth of what the pattern does.
    if (
        (capitals and ("AKIA" in text or "ASIA" in text or "AIza" in text or "SG." in text))
        or ("_" in text and ("gh" in text or "k_live_" in text or "k_test_" in text))
        or ("-" in text and ("glpat-" in text or "xox" in text or "sk-" in text))
        or ("npm_" in text or "hvs." in text or "hvb." in text)
    ):
        text = _PROVIDER.sub(MARK, text)
    return text


def _hide_basic(found: re.Match[str]) -> str:
    # "basic authentication" is prose; a login is base64 of name:password.
    packed = found[3].rstrip("=")
    try:
        opened = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return found[0]
    return f"{found[1]}{found[2]}{MARK}" if b":" in opened else found[0]


def hide_random(text: str) -> str:
    """The text without runs of 32 signs or more that hold capitals, small letters and digits, as random keys do."""
    return _RANDOM.sub(_hide_random, text)


def _hide_random(found: re.Match[str]) -> str:
    return MARK if all(kind.search(found[0]) for kind in _KINDS) else found[0]
