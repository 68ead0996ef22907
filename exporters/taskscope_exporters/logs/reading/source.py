"""Where lines are read from: one Protocol for Elasticsearch, a spool folder, and both together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from taskscope.errors import TaskscopeError
from taskscope_exporters.logs.reading.conditions import Query
from taskscope_exporters.logs.reading.entry import Entry

__all__ = ["MOST_LINES", "Counted", "Counts", "ReadError", "Source"]

MOST_LINES: Final = 10_000
"""The most lines that one question is answered with."""


class ReadError(TaskscopeError):
    """For whoever reads lines: they cannot be had; says from where, why, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One value, how many lines have it, and the newest of these."""

    value: str
    count: int
    newest: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The most frequent values, first the most frequent one.

    lines: that were counted, those of other values included. cut: whether there were more lines than are counted.
    """

    rows: Sequence[Counted]
    lines: int
    cut: bool = False


class Source(Protocol):
    """Lines of services. Each method raises ReadError if they cannot be had."""

    def newest(self, query: Query, limit: int) -> Iterator[Entry]:
        """The newest lines that the query asks for, at most `limit`, the newest first."""

    def top(self, query: Query, field: str, rows: int) -> Counts:
        """The most frequent values of a field in the lines that the query asks for."""
