"""Whether a condition holds for a line at hand, as the server would judge it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

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
    Query,
    Says,
)
from taskscope_exporters.logs.reading.entry import Entry, texts

__all__ = ["LABELS", "SPOKEN", "holds", "matches", "needles", "tokens"]

SPOKEN: Final = ("message", "error.message", "error.stack_trace")
"""The text fields in which a word is looked for."""
LABELS: Final = "labels"

# The rules of Unicode's text segmentation as far as log lines go: a dot, a colon or an apostrophe inside a word,
# and a dot, a comma, a semicolon or an apostrophe inside a number, do not end it; each ideograph is a word.
_TOKEN: Final = re.compile(
    r"[\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff]"
    r"|[^\W\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff]+"
    r"(?:(?:(?<=[^\W\d_])[.:'’·](?=[^\W\d_])|(?<=\d)[.,;'’](?=\d))"
    r"[^\W\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff]+)*"
)
_PLAIN: Final = re.compile(r"[a-z0-9_.\-]+")
_MILLISECOND: Final = 1000


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, cut as Elasticsearch's standard analyser cuts them."""
    return [token for token in _TOKEN.findall(text.lower()) if token.strip("_")]


def matches(query: Query, line: Entry) -> bool:
    """Whether the line is one that the query asks for; times are compared by the millisecond, as the server does."""
    at = line.at // _MILLISECOND
    if at < query.since // _MILLISECOND:
        return False
    if query.until is not None and at > query.until // _MILLISECOND:
        return False
    return all(holds(condition, line) for condition in query.conditions)


def holds(condition: Condition, line: Entry) -> bool:
    """Whether the condition is true of the line."""
    match condition:
        case Says():
            return _says(condition, line)
        case Phrase(field=field, words=words):
            return _spoken(tokens(words), line, (field,), begins=False)
        case Is(field=field, value=value):
            return value in _values(line, field)
        case OneOf(field=field, values=values):
            return not set(values).isdisjoint(_values(line, field))
        case Like(field=field, pattern=pattern):
            return any(_like(pattern, value) for value in _values(line, field))
        case Between():
            return _between(condition, line.number(condition.field))
        case Present(field=field):
            return any(True for _ in _values(line, field))
        case AnyOf(conditions=conditions):
            return any(holds(one, line) for one in conditions)
        case Not(condition=inner):
            return not holds(inner, line)


def _values(line: Entry, field: str) -> Iterator[str]:
    """A field's values; of `labels` as a whole, those of all keys below it."""
    if field != LABELS:
        yield from texts(line.fields.get(field))
        return
    for name, value in line.fields.items():
        if name.startswith(f"{LABELS}.") or name == LABELS:
            yield from texts(value)


def _says(condition: Says, line: Entry) -> bool:
    text = condition.words
    if _spoken(tokens(text), line, SPOKEN, begins=condition.begins):
        return True
    kinds = [kind.lower() for kind in _values(line, "error.type")]
    asked = text.lower()
    if condition.begins:
        return any(kind.startswith(asked) or f".{asked}" in kind for kind in kinds) or any(
            value.startswith(text) for value in _values(line, LABELS)
        )
    return any(kind == asked or kind.endswith(f".{asked}") for kind in kinds) or text in _values(
        line, LABELS
    )


def _spoken(asked: Sequence[str], line: Entry, fields: Sequence[str], *, begins: bool) -> bool:
    if not asked:
        return False
    for field in fields:
        for text in texts(line.fields.get(field)):
            said = tokens(text)
            if _begins(asked, said) if begins else _follow(asked, said):
                return True
    return False


def _follow(asked: Sequence[str], said: Sequence[str]) -> bool:
    length = len(asked)
    return any(said[n : n + length] == asked for n in range(len(said) - length + 1))


def _begins(asked: Sequence[str], said: Sequence[str]) -> bool:
    *whole, last = asked
    return set(whole) <= set(said) and any(word.startswith(last) for word in said)


def _like(pattern: str, value: str) -> bool:
    parts = pattern.split("*")
    return re.fullmatch(".*".join(map(re.escape, parts)), value, re.DOTALL) is not None


def _between(condition: Between, value: int | None) -> bool:
    if value is None:
        return False
    return (condition.low is None or value >= condition.low) and (
        condition.high is None or value <= condition.high
    )


def needles(query: Query) -> tuple[bytes, ...]:
    """Texts in lower case that stand in the JSON of each line the query asks for: what lacks one need not be read."""
    words: set[str] = set()
    for condition in query.conditions:
        words.update(_needed(condition))
    return tuple(sorted((word.encode() for word in words if _PLAIN.fullmatch(word)), key=len))[::-1]


def _needed(condition: Condition) -> Sequence[str]:
    match condition:
        case Says(words=words):
            return tokens(words)
        case Is(field=field, value=value):
            return (_key(field), value.lower())
        case Phrase(field=field, words=words):
            return (_key(field), *tokens(words))
        case Like(field=field) | Between(field=field) | Present(field=field):
            return (_key(field),)
        case AnyOf(conditions=conditions):
            values = {one.value.lower() if isinstance(one, Is) else "" for one in conditions}
            return tuple(values) if len(values) == 1 else ()
        case _:
            return ()


def _key(field: str) -> str:
    """The last part of a field's name stands as a key, or at a key's end, wherever the field is set."""
    return field.rpartition(".")[2].lower()
