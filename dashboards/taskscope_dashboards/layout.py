"""Rows of panels onto Grafana's grid of 24 columns: every line full, nothing overlaps, ids that stay."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from taskscope_dashboards.board import Board, Row
from taskscope_dashboards.panel import BoardError, Panel

__all__ = ["COLUMNS", "Heading", "Placed", "Rectangle", "overlaps", "place", "spread"]

COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A place on the grid: columns from the left, lines from the top."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A row's heading in its place."""

    title: str
    where: Rectangle
    id: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A panel in its place."""

    panel: Panel
    where: Rectangle
    id: int


def place(board: Board) -> tuple[Heading | Placed, ...]:
    """Every heading and panel of the board with its place and id, in reading order.

    An id follows from the title alone, so links to one panel survive panels added around it.
    Raises BoardError for a line that is not full, panels of unequal height in one line, or equal ids.
    """
    out: list[Heading | Placed] = []
    y = 0
    for row in board.rows:
        out.append(
            Heading(row.title, Rectangle(0, y, COLUMNS, 1), _stable_id(board, f"row {row.title}"))
        )
        y += 1
        for line in _lines(board, row):
            x = 0
            for panel in line:
                where = Rectangle(x, y, panel.width, panel.height)
                out.append(Placed(panel, where, _stable_id(board, panel.title)))
                x += panel.width
            y += line[0].height
    ids = [item.id for item in out]
    twice = next((item for item in out if ids.count(item.id) > 1), None)
    if twice is not None:
        raise BoardError(
            f"{board.uid}: the id of {_title(twice)!r} is taken; change its title a little"
        )
    return tuple(out)


def _title(item: Heading | Placed) -> str:
    return item.title if isinstance(item, Heading) else item.panel.title


def _stable_id(board: Board, title: str) -> int:
    return zlib.crc32(f"{board.slug}/{title}".encode()) % 999_999 + 1


def _lines(board: Board, row: Row) -> list[list[Panel]]:
    lines: list[list[Panel]] = [[]]
    for panel in row.panels:
        if sum(p.width for p in lines[-1]) + panel.width > COLUMNS:
            lines.append([])
        lines[-1].append(panel)
    for line in lines:
        width = sum(panel.width for panel in line)
        if width != COLUMNS:
            titles = ", ".join(panel.title for panel in line)
            raise BoardError(
                f"{board.uid}: {titles} fill {width} of {COLUMNS} columns; widen one, or use spread()"
            )
        if len({panel.height for panel in line}) > 1:
            raise BoardError(
                f"{board.uid}: {line[0].title} and its neighbours are not of one height; give them one"
            )
    return lines


def spread(panels: Sequence[Panel], *, per_line: int, height: int = 8) -> tuple[Panel, ...]:
    """The panels with widths that fill every line, at most `per_line` (a divisor of 24) in each."""
    out: list[Panel] = []
    for first in range(0, len(panels), per_line):
        line = panels[first : first + per_line]
        share, rest = divmod(COLUMNS, len(line))
        widths = [share + (1 if index < rest else 0) for index in range(len(line))]
        out += [
            replace(panel, width=width, height=height)
            for panel, width in zip(line, widths, strict=True)
        ]
    return tuple(out)


def overlaps(a: Rectangle, b: Rectangle) -> bool:
    """Whether the two share a cell of the grid."""
    return (
        a.x < b.x + b.width
        and b.x < a.x + a.width
        and a.y < b.y + b.height
        and b.y < a.y + a.height
    )
