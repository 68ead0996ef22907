"""A query as a request to Elasticsearch: an object in which each value of a person's stands as a value.

No query string is ever made, so nothing that somebody types can change what is asked.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, TypeAlias

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
    is_key,
)
from taskscope_exporters.logs.reading.matching import LABELS, SPOKEN

__all__ = ["Clause", "clause", "query_of", "stamp"]

Clause: TypeAlias = dict[str, object]

_MICROSECOND: Final = 1_000_000
_SPECIAL: Final = re.compile(r"[\\?*]")


def query_of(query: Query) -> Clause:
    """The whole query; it is answered by filters alone, which the server may cache and need not rank."""
    span: dict[str, object] = {"gte": stamp(query.since)}
    if query.until is not None:
        span["lte"] = stamp(query.until)
    asked = [condition for condition in query.conditions if not isinstance(condition, Not)]
    unwanted = [condition.condition for condition in query.conditions if isinstance(condition, Not)]
    return _bool(
        filter=[{"range": {"@timestamp": span}}, *map(clause, asked)],
        must_not=[clause(condition) for condition in unwanted],
    )


def clause(condition: Condition) -> Clause:
    """The condition as one clause."""
    match condition:
        case Says():
            return _bool(should=_says(condition))
        case Phrase(field=field, words=words):
            return {"match_phrase": {field: {"query": words}}}
        case Is(field=field, value=value):
            return {"term": {field: {"value": value}}}
        case OneOf(field=field, values=values):
            return {"terms": {field: list(values)}}
        case Like():
            return _like(condition)
        case Between(field=field, low=low, high=high):
            bounds = {"gte": low, "lte": high}
            return {"range": {field: {k: v for k, v in bounds.items() if v is not None}}}
        case Present(field=field):
            return {"exists": {"field": field}}
        case AnyOf(conditions=conditions):
            return _bool(should=[clause(one) for one in conditions])
        case Not(condition=inner):
            return _bool(must_not=[clause(inner)])


def _says(condition: Says) -> list[Clause]:
    text = condition.words
    end = "*" if condition.begins else ""
    found: list[Clause] = [
        {"wildcard": {"error.type": {"value": pattern, "case_insensitive": True}}}
        for pattern in (f"{_escaped(text)}{end}", f"*.{_escaped(text)}{end}")
    ]
    value: Clause = {LABELS: {"value": text}}
    found.append({"prefix": value} if condition.begins else {"term": value})
    for field in SPOKEN:
        if condition.begins:
            found.append({"match_bool_prefix": {field: {"query": text, "operator": "and"}}})
        else:
            found.append({"match_phrase": {field: {"query": text}}})
    return found


def _like(condition: Like) -> Clause:
    if is_key(condition.field):
        # A flattened field knows no pattern but a beginning, which is all that the parser lets through.
        return {"prefix": {condition.field: {"value": condition.pattern[:-1]}}}
    pattern = "*".join(map(_escaped, condition.pattern.split("*")))
    return {"wildcard": {condition.field: {"value": pattern}}}


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def _bool(**clauses: list[Clause]) -> Clause:
    kept: dict[str, object] = {name: found for name, found in clauses.items() if found}
    if "should" in kept:
        kept["minimum_should_match"] = 1
    return {"bool": kept}


def stamp(at: int) -> str:
    """Microseconds since 1970 as the server reads them; what no calendar holds becomes its first or last day."""
    seconds, rest = divmod(at, _MICROSECOND)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime(9999 if at > 0 else 1, 1, 1, tzinfo=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"
