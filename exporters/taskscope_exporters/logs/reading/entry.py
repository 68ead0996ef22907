"""A log line as a reader sees it: its id, its time, and its fields under dotted names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["Entry", "entry", "microseconds", "texts"]

_DEEPEST: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. at: microseconds since 1970. fields: values under dotted names; source: the document as it is."""

    id: str
    at: int
    fields: Mapping[str, object]
    source: Mapping[str, object]

    def text(self, name: str) -> str:
        """The field's first value as text; empty if the line has none."""
        return next(texts(self.fields.get(name)), "")

    def number(self, name: str) -> int | None:
        """The field's value if it is a whole number."""
        value = self.fields.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def entry(id: str, source: Mapping[str, object], *, at: int = 0) -> Entry:  # noqa: A002 # its name everywhere
    """The document as an Entry. at: its time where it holds none that can be read, in microseconds since 1970."""
    fields: dict[str, object] = {}
    for (
        key,
        value,
    ) in source.items():  # without a generator for what is flat already, as most of a line is
        if isinstance(value, dict | list):
            fields.update(_flat("", {key: value}, _DEEPEST))
        else:
            fields[key] = value
    found = microseconds(fields.get("@timestamp"))
    return Entry(id=id, at=at if found is None else found, fields=fields, source=source)


# Documents come out of JSON: objects are dicts, and to ask for an abstract class would cost more than all the rest.
def _flat(prefix: str, value: Mapping[str, object], depth: int) -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        name = prefix + key
        if not isinstance(inner, dict | list):
            yield name, inner
        elif isinstance(inner, list):
            if depth and any(isinstance(one, dict) for one in inner):
                yield from _gathered(name, inner, depth - 1)
            else:
                yield name, inner
        elif depth:
            yield from _flat(f"{name}.", inner, depth - 1)
        else:
            yield name, json.dumps(inner)


def _gathered(name: str, items: Sequence[object], depth: int) -> Iterator[tuple[str, object]]:
    """Of a list of objects each key once, with the values of all of them, as the server sees it."""
    found: dict[str, list[object]] = {}
    for one in items:
        pairs = _flat(f"{name}.", one, depth) if isinstance(one, dict) else [(name, one)]
        for key, inner in pairs:
            found.setdefault(key, []).extend(inner if isinstance(inner, list) else [inner])
    yield from found.items()


def microseconds(stamp: object) -> int | None:
    """An ISO 8601 time stamp in microseconds since 1970; without a zone it is UTC. None if it is none."""
    if isinstance(stamp, str):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(stamp)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return (moment - _EPOCH) // _TICK
    return None


def texts(value: object) -> Iterator[str]:
    """The values of a field as the server compares them: each of a list, numbers and truth values as JSON has them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif value is not None:
        yield str(value)
