"""How commands speak: lines as they are, tables drawn on a terminal and plain when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["plural", "say", "table"]


def say(line: str) -> None:
    """`line` stands on standard output."""
    sys.stdout.write(f"{line}\n")


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows stand in aligned columns: drawn by rich on a terminal, plain text in a pipe."""
    if sys.stdout.isatty():
        _draw(title, head, rows)
        return
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def _draw(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        drawn.add_column(name, style="cyan" if number == 0 else "", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    Console().print(drawn)
