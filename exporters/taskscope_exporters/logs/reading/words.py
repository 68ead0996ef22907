"""What a person types, read: words, phrases and `field:value`, and the options that stand for some of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from taskscope.logs.fields import FIELDS, FieldType
from taskscope_exporters.logs.reading.conditions import (
    AnyOf,
    Between,
    Condition,
    Is,
    Like,
    Not,
    OneOf,
    Phrase,
    Present,
    QueryError,
    Says,
    is_key,
)

__all__ = [
    "ALIASES",
    "LEVELS",
    "at_least",
    "exactly",
    "field_of",
    "of_outcome",
    "of_status",
    "of_trace",
    "parse",
]

ALIASES: Final = {
    "level": "log.level",
    "logger": "log.logger",
    "service": "service.name",
    "instance": "service.node.name",
    "environment": "service.environment",
    "version": "service.version",
    "trace": "trace.id",
    "span": "span.id",
    "request": "http.request.id",
    "method": "http.request.method",
    "route": "http.route",
    "path": "url.path",
    "status": "http.response.status_code",
    "duration": "event.duration",
    "client": "client.address",
    "user": "user.hash",
    "exception": "error.type",
    "error": "error.message",
    "stack": "error.stack_trace",
    "event": "message",
    "host": "host.name",
    "pid": "process.pid",
}
"""Short names of fields."""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_OTHER_WORDS: Final = {"warn": "warning", "fatal": "critical", "err": "error"}
_STATUS: Final = "http.response.status_code"
_DURATION: Final = "event.duration"
_LONGEST: Final = 500
_MOST_TERMS: Final = 50
_OUTCOMES: Final = frozenset({"success", "failure", "unknown"})

_TERM: Final = re.compile(r'(-?)(?:([A-Za-z_@][\w.@\-]*):)?(?:"([^"]*)"|(\S+))\s*')
_NUMBER: Final = re.compile(r"(-?\d{1,15}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m)?")
_CLASS: Final = re.compile(r"([1-5])xx", re.IGNORECASE)
_UNITS: Final = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000,
}  # fmt: skip


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions that the words stand for; all must hold. Raises QueryError.

    `timeout` a word, `time*` the beginning of one, `"pool exhausted"` a phrase, `route:/tasks` a field's value,
    `route:/tasks*` its beginning, `status:5xx`, `duration:>250ms`, `status:400..499`, `exception:*` any value at all,
    `-route:/livez` none of these. A name that is no field of the schema is a key of the service's own.
    """
    found: list[Condition] = []
    at = 0
    text = text.strip()
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or not term[0]:
            raise QueryError(f"{text[at:]!r} cannot be read; close the quotation mark")
        at = term.end()
        found.append(_condition(term))
    if len(found) > _MOST_TERMS:
        raise QueryError(f"{len(found)} words are too many; ask for at most {_MOST_TERMS}")
    return tuple(found)


def _condition(term: re.Match[str]) -> Condition:
    minus, name = term[1], term[2] or ""
    quoted: str | None = term[3]
    bare: str = term[4] or ""
    if '"' in bare:
        raise QueryError(f"{bare!r} cannot be read; put quotation marks around the whole value")
    value = quoted if quoted is not None else bare
    if name and value.startswith("//"):  # an address, not a field
        name, value = "", f"{name}:{value}"
    _bounded(value)
    if not value.strip():
        raise QueryError(f"{term[0].strip()!r} has no value; write one, or * for any")
    made = _named(name, value, quoted is not None) if name else _words(value, quoted is not None)
    return Not(condition=made) if minus else made


def _bounded(value: str) -> None:
    """Raises QueryError for what is longer than any word: the server refuses patterns of 1,000 characters."""
    if len(value) > _LONGEST:
        raise QueryError(f"{value[:40]!r}… is too long; ask for at most {_LONGEST} characters")


def _words(value: str, quoted: bool) -> Condition:
    begins = value.endswith("*") and not quoted
    words = value[:-1] if begins else value
    if not words or ("*" in words and not quoted):
        raise QueryError(f"{value!r} cannot be looked for; a * may only end a word")
    return Says(words=words, begins=begins)


def _named(name: str, value: str, quoted: bool) -> Condition:
    if name.lower() == "outcome" and value != "*":
        return of_outcome(value)
    field = field_of(name)
    kind = FIELDS.get(field)
    if value == "*" and not quoted:
        return Present(field=field)
    if kind is FieldType.LONG:
        return _numbers(field, value)
    if kind is FieldType.TEXT:
        return Phrase(field=field, words=value)
    if kind is FieldType.DATE:
        raise QueryError(f"{name}:{value} is a time; say it by --since and --until")
    if field == "log.level":
        value = _OTHER_WORDS.get(value.lower(), value.lower())
    return Is(field=field, value=value) if quoted else exactly(field, value)


def field_of(name: str) -> str:
    """The whole name of a field that a person names shortly, or as a key of the service's own."""
    field = ALIASES.get(name.lower(), name)
    return field if field in FIELDS or is_key(field) else f"labels.{field}"


def exactly(field: str, value: str) -> Condition:
    """The field has this value; a `*` in it stands for any text. Raises QueryError."""
    _bounded(value)
    if "*" not in value:
        return Is(field=field, value=value)
    if is_key(field) and value.find("*") != len(value) - 1:
        raise QueryError(
            f"{field.removeprefix('labels.')}:{value} cannot be asked; in a key of the service's own a * may "
            "only end a value"
        )
    return Like(field=field, pattern=value)


def _numbers(field: str, value: str) -> Between:
    read: Callable[[str], int] = _nanoseconds if field == _DURATION else _whole
    if field == _STATUS and (found := _CLASS.fullmatch(value)):
        first = int(found[1]) * 100
        return Between(field=field, low=first, high=first + 99)
    try:
        return _between(field, value, read)
    except ValueError:
        like = ">250ms or 10ms..1s" if field == _DURATION else "500, 5xx, >=500 or 400..499"
        raise QueryError(f"{value!r} is no number for {field}; write it as {like}") from None


def _between(field: str, value: str, read: Callable[[str], int]) -> Between:
    low, dots, high = value.partition("..")
    if dots:
        return Between(field=field, low=read(low), high=read(high))
    sign = value[: len(value) - len(value.lstrip("<>="))]
    number = read(value[len(sign) :])
    match sign:
        case "" | "=":
            return Between(field=field, low=number, high=number)
        case ">":
            return Between(field=field, low=number + 1)
        case ">=":
            return Between(field=field, low=number)
        case "<":
            return Between(field=field, high=number - 1)
        case "<=":
            return Between(field=field, high=number)
        case _:
            raise ValueError(sign)


def _whole(text: str) -> int:
    if not text.isascii() or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _nanoseconds(text: str) -> int:
    """A duration; without a unit it is in milliseconds."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return round(float(found[1]) * _UNITS[found[2] or "ms"])


def at_least(level: str) -> Condition:
    """Lines of this level and of those above it. Raises QueryError."""
    word = _OTHER_WORDS.get(level.lower(), level.lower())
    if word not in LEVELS:
        raise QueryError(f"level {level!r} is none; take one of {', '.join(LEVELS)}")
    wanted = LEVELS[LEVELS.index(word) :]
    others = [other for other, same in _OTHER_WORDS.items() if same in wanted]
    return OneOf(field="log.level", values=(*wanted, *others))


def of_status(text: str) -> Condition:
    """Answers with this status: `503`, `5xx`, `>=500`, `400..499`. Raises QueryError."""
    return _numbers(_STATUS, text)


def of_outcome(text: str) -> Condition:
    """What became of a request: `success`, `failure`, or more exactly `server_error`, `cancelled`, …"""
    word = text.lower()
    return Is(field="event.outcome" if word in _OUTCOMES else "labels.outcome", value=word)


def of_trace(id: str) -> Condition:  # noqa: A002 # its name everywhere
    """All lines of a trace, or of a request under our id or the caller's. Raises QueryError."""
    if not 0 < len(id) <= 256 or not id.isprintable():
        raise QueryError(f"{id[:40]!r} is no id; take a line's trace= or request=")
    fields = ("trace.id", "http.request.id", "labels.client_request_id")
    return AnyOf(conditions=tuple(Is(field=field, value=id) for field in fields))
