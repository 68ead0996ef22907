"""Text in pieces that are painted, wrapped and made harmless: nothing in a line moves the cursor or forges another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Final

__all__ = ["Piece", "Tone", "laid_out", "painted", "quoted", "shown", "width_of"]

_BARE: Final = re.compile(r'[^\s"=]+')
_LEAST_ROOM: Final = 20


class Tone(Enum):
    """How a piece looks on a terminal; the values are its codes."""

    PLAIN = ""
    DIM = "2"
    BOLD = "1"
    GOOD = "32"
    NOTE = "36"
    WARN = "33"
    BAD = "31"
    WORST = "1;31"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A text without control characters, and how it looks."""

    text: str
    tone: Tone = Tone.PLAIN


def shown(text: str) -> str:
    """The text on one line, each character that a terminal would obey or hide spelled out, as `\\x1b` or `\\n`."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else _spelled(sign)
        for sign in text
    )


def _spelled(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """A value beside its key: bare if that is plain, or else in quotation marks, so that no value looks like a key."""
    if _BARE.fullmatch(text) and text.isprintable():
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown(escaped)}"'


def width_of(text: str) -> int:
    """The terminal's cells that the text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(sign: str) -> int:
    if unicodedata.combining(sign) or unicodedata.category(sign) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def painted(pieces: Sequence[Piece], *, colour: bool) -> str:
    """The pieces one after another; colour: whether codes say how they look."""
    if not colour:
        return "".join(piece.text for piece in pieces)
    runs = ((tone, "".join(piece.text for piece in run)) for tone, run in groupby(pieces, _tone))
    return "".join(
        f"\x1b[{tone.value}m{text}\x1b[0m" if tone.value else text for tone, text in runs
    )


def _tone(piece: Piece) -> Tone:
    return piece.tone


def laid_out(
    head: Sequence[Piece],
    body: Sequence[Piece],
    *,
    width: int | None,
    indent: int,
    most_rows: int | None = None,
) -> list[list[Piece]]:
    """The head and then the body, word by word, as rows of at most `width` cells.

    head: is never broken. width: None for one row however long. indent: of every row but the first.
    most_rows: what does not fit in so many is left out, and an ellipsis says so.
    """
    rows: list[list[Piece]] = [list(head)]
    at = sum(width_of(piece.text) for piece in head)
    room = None if width is None else max(width, indent + _LEAST_ROOM)
    for word in _words(body, None if room is None else room - indent):
        cells = width_of(word.text)
        gap = 1 if rows[-1] and at != indent else 0
        if room is not None and at + gap + cells > room:
            if most_rows is not None and len(rows) >= most_rows:
                _end(rows[-1], at, room)
                return rows
            rows.append([Piece(text=" " * indent)])
            at, gap = indent, 0
        if gap:
            same = rows[-1][-1].tone is word.tone
            rows[-1].append(Piece(text=" ", tone=word.tone if same else Tone.PLAIN))
        rows[-1].append(word)
        at += gap + cells
    return rows


def _words(body: Sequence[Piece], room: int | None) -> Iterator[Piece]:
    """Each word of each piece; one that is wider than a row is broken."""
    for piece in body:
        for word in piece.text.split(" "):
            yield from _broken(Piece(text=word, tone=piece.tone), room)


def _broken(word: Piece, room: int | None) -> Iterator[Piece]:
    if room is None or width_of(word.text) <= room:
        yield word
        return
    text, cells = "", 0
    for sign in word.text:
        if cells + _cells(sign) > room:
            yield Piece(text=text, tone=word.tone)
            text, cells = "", 0
        text += sign
        cells += _cells(sign)
    if text:
        yield Piece(text=text, tone=word.tone)


def _end(row: list[Piece], at: int, room: int) -> None:
    """The row ends with an ellipsis, in place of its last cells if there is no room."""
    mark = Piece(text=" …", tone=Tone.DIM)
    while row and at + 2 > room:
        last = row.pop()
        at -= width_of(last.text)
        if width_of(last.text) > 2 and last.text.isascii():
            kept = last.text[: max(0, room - 2 - at)]
            row.append(Piece(text=kept, tone=last.tone))
            at += len(kept)
            break
    row.append(mark)
