"""Secrets to plant: one of every shape, with what of it must be found nowhere afterwards.

All are made up for this purpose. Plant `Needle.text` wherever text goes, then look for `Needle.secret` in whatever
left the process.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

__all__ = ["NEEDLES", "Needle", "hidden_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """One planted secret. text: as it is told. secret: what nobody may read. preset: the least that hides it."""

    name: str
    text: str
    secret: tuple[str, ...]
    preset: str = "default"


def _needle(name: str, text: str, *secret: str, preset: str = "default") -> Needle:
    return Needle(name=name, text=text, secret=secret, preset=preset)


_JWT: Final = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"n33dle-01"}', b"n33dle-signature")
)
_BASIC: Final = base64.b64encode(b"ann:n33dle-04").decode()
_BLOCK: Final = base64.b64encode(b"n33dle-20 " * 12).decode()
_KEY: Final = f"-----BEGIN RSA PRIVATE KEY-----\n{_BLOCK}\n-----END RSA PRIVATE KEY-----"
_AWS: Final = "AKIA" + "N33DLE7XYZ012345"
_AWS_OTHER: Final = "n33dle/25K7MDENG+bPxRfiCYEXAMPLEKEYabcde"
_GITHUB: Final = "ghp_" + "n33dle26n33dle26n33dle26n33dle26abcd"
_STRIPE: Final = "sk_" + "live_n33dle27n33dle27n33d"

NEEDLES: Final = (
    _needle("jwt", _JWT, _JWT, _JWT.split(".")[1]),
    _needle("jwt in a query", f"/cb?next=%2Fhome&t=%20{_JWT}&page=2", _JWT, _JWT.split(".")[1]),
    _needle("bearer", "Authorization: Bearer n33dle-03.a_b~c", "n33dle-03"),
    _needle("basic", f"sent Basic {_BASIC}", _BASIC),
    _needle("digest", 'Authorization: Digest username="ann", response="n33dle-05"', "n33dle-05"),
    _needle("login of a dsn", "postgresql+asyncpg://app:n33dle-06@db:5432/tasks", "n33dle-06"),
    _needle("login with an at sign", "smtp://ann@mail.example:n33@dle-07@mx/", "dle-07"),
    _needle("login without a user", "redis://:n33dle-08@cache:6379/0", "n33dle-08"),
    _needle("login encoded", "next=https%3A%2F%2Fann%3An33dle-09%40host%2Fx", "n33dle-09"),
    _needle("cookie", 'Cookie: theme=dark; sid="n33dle-10"; x=n33dle-10b', "n33dle-10"),
    _needle("set-cookie", "set-cookie: session=n33dle-11; Path=/; HttpOnly", "n33dle-11"),
    _needle(
        "password in a query", "/x?user=ann&password=n33dle-12,a)b&page=2", "n33dle-12", "12,a)b"
    ),
    _needle("token encoded", "/x?to=%2Fcb%3Faccess_token%3Dn33dle-13", "n33dle-13"),
    _needle("token encoded twice", "/x?to=%252Fcb%253Faccess_token%253Dn33dle-14", "n33dle-14"),
    _needle(
        "json", '{"user": "ann", "password": "n33dle-15 with words"}', "n33dle-15", "with words"
    ),
    _needle("json in json", '{"body": "{\\"secret\\": \\"n33dle-16\\"}"}', "n33dle-16"),
    _needle(
        "repr of a dict", "{'credentials': {'a': ['n33dle-17'], 'b': 'n33dle-17b'}}", "n33dle-17"
    ),
    _needle("repr of an object", "Login(name='ann', api_key=b'n33dle-18', n=1)", "n33dle-18"),
    _needle("form", "grant_type=password&client_secret=n33dle-19&scope=all", "n33dle-19"),
    _needle("private key", _KEY, _BLOCK[:24], _BLOCK[-24:]),
    _needle("private key on one line", _KEY.replace("\n", "\\n"), _BLOCK[:24], _BLOCK[-24:]),
    _needle("private key cut off", _KEY[:150], _BLOCK[:24]),
    _needle("card in fours", "paid with 4111 1111 1111 1111 on Monday", "4111 1111", "1111 1111"),
    _needle("card with hyphens", "card 5500-0000-0000-0004 123", "5500-0000", "0000-0004"),
    _needle("card in one piece", "amex 378282246310005.", "378282246310005"),
    _needle("card after a number", "12 5105 4111 1111 1111 1111 ok", "4111 1111 1111 1111"),
    _needle("aws key", f"key {_AWS} was used", _AWS),
    _needle("aws secret", f"AWS_SECRET_ACCESS_KEY={_AWS_OTHER}", _AWS_OTHER, _AWS_OTHER[10:]),
    _needle("github", f"https://{_GITHUB}@github.example/x", _GITHUB),
    _needle("stripe", f"charged by {_STRIPE}", _STRIPE),
    _needle("e-mail", "mail to n33dle.29+tag@mail.example.org now", "n33dle.29", "mail.example"),
    _needle("e-mail encoded", "/x?m=n33dle.30%40example.org", "n33dle.30"),
    _needle(
        "422 of pydantic",
        "1 validation error for Login\npassword\n  String should have at least 12 characters "
        "[type=string_too_short, input_value='n33dle-31', input_type=str]",
        "n33dle-31",
    ),
    _needle(
        "422 of fastapi",
        "[{'type': 'string_too_short', 'loc': ('body', 'password'), 'msg': 'too short', "
        "'input': {'a': 'n33dle-32'}, 'ctx': {'min_length': 12}}]",
        "n33dle-32",
    ),
    _needle(
        "parameters of sqlalchemy",
        "(psycopg.errors.UniqueViolation) duplicate key\n[SQL: INSERT INTO users (name, hash) VALUES (%s, %s)]\n"
        "[parameters: ('ann', 'n33dle-33')]\n(Background on this error at: sqlalche.me)",
        "n33dle-33",
    ),
    _needle("row of postgresql", "DETAIL:  Failing row contains (1, ann, n33dle-34).", "n33dle-34"),
    _needle("key of postgresql", "DETAIL:  Key (login)=(n33dle-35) already exists.", "n33dle-35"),
    _needle(
        "insert",
        "INSERT INTO users (name, password) VALUES ('ann', 'n33dle-36'), ('b', 'n33dle-36')",
        "n33dle-36",
    ),
    _needle("sql password", "ALTER ROLE app WITH PASSWORD 'n33''dle-37'", "dle-37"),
    _needle("update", "UPDATE users SET password_hash = 'n33dle-38' WHERE id = 7", "n33dle-38"),
    _needle("command line", "psql --host db --password n33dle-39 -c x", "n33dle-39"),
    _needle("xml", "<login><password>n33dle-40</password></login>", "n33dle-40"),
    _needle("local variable", "    dsn = 'x'\n    db_pass = 'n33dle-41'\n    n = 3", "n33dle-41"),
    _needle("header pair", "[(b'x-api-key', b'n33dle-42'), (b'accept', b'*/*')]", "n33dle-42"),
    _needle(
        "iban", "to DE89 3704 0044 0532 0130 00 today", "3704 0044", "0532 0130 00", preset="gdpr"
    ),
    _needle("iban in one piece", "GB82WEST12345698765432", "WEST12345698765432", preset="gdpr"),
    _needle("phone", "call +49 (30) 901820-45 soon", "901820-45", preset="gdpr"),
    _needle("national phone", "call 030 9018201 soon", "030 9018201", preset="gdpr"),
    _needle("ip", "from 203.0.113.77 at noon", "203.0.113.77", preset="gdpr"),
    _needle("ipv6", "from [2001:db8::8a2e:370:7334]:443", "8a2e:370", preset="gdpr"),
    _needle("name of a person", "{'first_name': 'N33dle', 'n': 1}", "N33dle", preset="gdpr"),
    _needle("card with other signs", "4111.1111/1111_1111", "1111_1111", preset="pci"),
    _needle("card within letters", "x4111111111111111y", "4111111111111111", preset="pci"),
    _needle("track data", "%B4111111111111112^N33DLE/ANN^3012101?", "N33DLE", preset="pci"),
    _needle(
        "random", "saw a7Kq9ZbX2mN4vR8tY1wE6uP3sD5fG0hJ there", "a7Kq9ZbX2mN4v", preset="strict"
    ),
)
"""Every needle; those of the default first."""


def hidden_by(preset: str) -> tuple[Needle, ...]:
    """The needles that a preset hides; all presets but `secrets` hide what the default does."""
    own = {"default", preset} if preset != "strict" else {"default", "pci", "gdpr", "strict"}
    return tuple(needle for needle in NEEDLES if needle.preset in own)
