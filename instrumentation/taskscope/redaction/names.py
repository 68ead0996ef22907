"""Names that tell of a secret or of a person: `password`, `X-Api-Key`, `db.passwd`, `accessToken`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["CARD_NAMES", "PERSONAL", "SECRETS", "STRICT_NAMES", "Names", "Secret", "words_of"]

Secret = Callable[[str], bool]
"""Whether what stands under a name is hidden."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# What a name ends with when it speaks about a secret without holding it: token_count, password_length.
_ABOUT: Final = frozenset({"count", "length", "type", "policy", "valid", "expired", "present"})
_RUN_TOGETHER: Final = re.compile(
    r"passw|passphrase|passcode|\Apwd|pwd\Z|secret|credential|tokens?\Z|apikey|jwt|csrf|xsrf|cvv"
    r"|sess(?:ion)?id|cardnumber"
)
"""In names written without a sign between the words, such as `dbpassword`."""
_LONGEST: Final = 256
_KEPT: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Words that make a name one to hide: a word alone, words that follow each other, a word at the name's end."""

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    def __add__(self, other: Names) -> Names:
        return Names(
            words=self.words + other.words,
            phrases=self.phrases + other.phrases,
            last=self.last + other.last,
        )

    def shown(self) -> tuple[str, ...]:
        """Each of them as a reader would write it: `password`, `api_key`, `…_pass`."""
        phrases = (phrase.replace(" ", "_") for phrase in self.phrases)
        return (*self.words, *phrases, *(f"…{word}" for word in self.last))

    def test(self, own: Iterable[str] = ()) -> Secret:
        """What tells whether a name holds one of them, or one of `own`, in whatever way it is written."""
        phrases = [tuple(words_of(key)) for key in own]
        words = frozenset(self.words).union(p[0] for p in phrases if len(p) == 1)
        pairs = {tuple(phrase.split()) for phrase in self.phrases}.union(
            p for p in phrases if len(p) > 1
        )
        sizes = sorted({len(pair) for pair in pairs})
        together = tuple(sorted({"".join(pair) for pair in pairs}))
        last = frozenset(self.last)

        @lru_cache(maxsize=_KEPT)
        def secret(name: str) -> bool:
            found = words_of(name)
            if not found or found[-1] in _ABOUT:
                return False
            return (
                found[-1] in last
                or not words.isdisjoint(found)
                or any(_RUN_TOGETHER.search(word) for word in found)
                or not words.isdisjoint(map("".join, itertools.pairwise(found)))
                or any(word in together for word in found)
                or any(not pairs.isdisjoint(_runs(found, size)) for size in sizes)
            )

        return secret


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: `X-Api-Key` and `xApiKey` are x, api, key."""
    return [word.lower() for word in _WORD.findall(name[-_LONGEST:])]


def _runs(words: list[str], size: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[at : at + size]) for at in range(len(words) - size + 1))


SECRETS: Final = Names(
    words=(
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
        "bearer",
        "jwt",
        "authorization",
        "cookie",
        "cookies",
        "setcookie",
        "credential",
        "credentials",
        "apikey",
        "signature",
        "otp",
        "cvv",
        "cvc",
        "xsrf",
        "csrf",
    ),
    phrases=(
        "api key",
        "access key",
        "private key",
        "secret key",
        "signing key",
        "encryption key",
        "session id",
        "card number",
    ),
    last=("pass",),
)
CARD_NAMES: Final = Names(
    words=("pan", "cardholder", "cav", "cid", "csc", "pin", "track1", "track2", "expiry"),
    phrases=(
        "card no",
        "card holder",
        "credit card",
        "debit card",
        "card data",
        "account number",
        "exp date",
        "exp month",
        "exp year",
        "expiration date",
        "security code",
        "service code",
        "track data",
        "pin block",
    ),
    last=("card",),
)
PERSONAL: Final = Names(
    words=(
        "firstname",
        "lastname",
        "fullname",
        "surname",
        "username",
        "birthday",
        "birthdate",
        "dob",
        "gender",
        "nationality",
        "email",
        "emails",
        "mail",
        "phone",
        "mobile",
        "telephone",
        "fax",
        "street",
        "postcode",
        "zipcode",
        "iban",
        "ssn",
        "passport",
        "latitude",
        "longitude",
        "ip",
    ),
    phrases=(
        "first name",
        "last name",
        "full name",
        "family name",
        "given name",
        "maiden name",
        "user name",
        "user id",
        "date of birth",
        "birth date",
        "postal code",
        "zip code",
        "home address",
        "postal address",
        "billing address",
        "shipping address",
        "client address",
        "remote addr",
        "forwarded for",
        "tax id",
        "national id",
        "id card",
        "driving licence",
        "driver license",
        "health insurance",
    ),
)
STRICT_NAMES: Final = Names(
    words=("sid", "sig", "auth", "session", "salt", "nonce", "seed", "private", "otc", "mfa"),
    phrases=("auth code", "verification code", "reset code", "recovery code", "access code"),
    last=("key", "keys", "dsn", "hash"),
)
