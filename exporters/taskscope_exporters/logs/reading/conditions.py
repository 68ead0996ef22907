"""What a line must be to be shown, as values: they become a request to a server, or a test of a line at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from taskscope.errors import TaskscopeError
from taskscope.logs.fields import FIELDS, FieldType

__all__ = [
    "AnyOf",
    "Between",
    "Condition",
    "Is",
    "Like",
    "Not",
    "OneOf",
    "Phrase",
    "Present",
    "Query",
    "QueryError",
    "Says",
    "is_key",
]


class QueryError(TaskscopeError):
    """For whoever asks for lines: a word of the question cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """The words stand in this order in a text of the line, or they are one of its values or its exception's name.

    begins: the last of them may go on.
    """

    words: str
    begins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """The words stand in this order in one text field."""

    field: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Is:
    """The field has exactly this value, or one of these."""

    field: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """The field has one of these values."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """The field's value is the pattern, in which `*` stands for any text."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The field's number is at least `low` and at most `high`; None is no bound."""

    field: str
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The line has the field."""

    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One of the conditions holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """The condition does not hold."""

    condition: Condition


Condition: TypeAlias = Says | Phrase | Is | OneOf | Like | Between | Present | AnyOf | Not


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Lines for which all conditions hold, from `since` on and before or at `until`, in microseconds since 1970."""

    conditions: tuple[Condition, ...] = ()
    since: int
    until: int | None = None


_OBJECTS: Final = tuple(f"{name}." for name, kind in FIELDS.items() if kind is FieldType.FLATTENED)


def is_key(field: str) -> bool:
    """Whether it is a key inside of one flattened field, such as `labels.task_id`; of these less can be asked."""
    return field.startswith(_OBJECTS)
