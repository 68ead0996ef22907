"""Counts how often a field's values come, of lines that pass one by one, in bounded memory."""

from __future__ import annotations

from typing import Final

from taskscope_exporters.logs.reading.entry import Entry, texts
from taskscope_exporters.logs.reading.source import Counted, Counts

__all__ = ["MOST_VALUES", "Tally"]

MOST_VALUES: Final = 2_000
"""The most values that are told apart; lines of further ones count as lines alone."""


class Tally:
    """The values of one field. lines: those seen that have it."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.lines = 0
        self._counts: dict[str, int] = {}
        self._newest: dict[str, Entry] = {}

    def add(self, line: Entry) -> None:
        """One more line is counted, under each value it has."""
        values = set(texts(line.fields.get(self.field)))
        self.lines += bool(values)
        for value in values:
            if value not in self._counts and len(self._counts) >= MOST_VALUES:
                continue
            self._counts[value] = self._counts.get(value, 0) + 1
            if value not in self._newest or line.at > self._newest[value].at:
                self._newest[value] = line

    def counts(self, rows: int, *, cut: bool = False) -> Counts:
        """The most frequent values; of equally frequent ones the first in the alphabet comes first."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return Counts(
            rows=[
                Counted(value=value, count=count, newest=self._newest[value])
                for value, count in ranked[:rows]
            ],
            lines=self.lines,
            cut=cut,
        )
