"""Where log lines are put: a terminal, with colours and within its width, or a pipe, as plain text or JSON."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from taskscope_exporters.logs.reading.entry import Entry
from taskscope_ui.loglines.line import Columns, Look, body_of, stack_of
from taskscope_ui.loglines.pieces import Piece, Tone, laid_out, painted
from taskscope_ui.loglines.spans import TraceColumns, depths, summary

__all__ = ["Screen", "as_json", "note"]

_UNSAFE = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_MOST_ROWS = 3
_LEAST_WIDTH = 40


def note(sentence: str) -> None:
    """The sentence stands on stderr, so that what is read by a program stays clean."""
    text = f"taskscope: {' '.join(sentence.split())}"
    sys.stderr.write(f"\x1b[2m{text}\x1b[0m\n" if _coloured(sys.stderr.isatty()) else f"{text}\n")
    sys.stderr.flush()


def _coloured(terminal: bool) -> bool:
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_json(document: Mapping[str, object]) -> str:
    """The document as one line of JSON, whose text moves no terminal's cursor either."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Screen:
    """Standard output as it is now. json: one document a line. utc: times in UTC, not in this machine's zone."""

    def __init__(self, *, json: bool, utc: bool, full: bool) -> None:
        self._json = json
        self._terminal = sys.stdout.isatty()
        self._colour = _coloured(self._terminal)
        zone = UTC if utc else None
        self.look = Look(
            zone=zone,
            today=datetime.now(UTC).astimezone(zone).date(),
            full=full,
            wide=not self._terminal,
        )
        self._columns = Columns(self.look, most_route=max(16, (self._width or 120) // 4))
        self._poll = _hang_ups()

    @property
    def _width(self) -> int | None:
        if not self._terminal:
            return None
        return max(_LEAST_WIDTH, shutil.get_terminal_size().columns)

    def lines(self, lines: Sequence[Entry]) -> None:
        """The lines stand on it, below those before."""
        self._columns.fit(lines)
        for line in lines:
            if self._json:
                self._say(as_json(line.source))
            else:
                self._line(self._columns.head(line), body_of(line, self.look), line, indent=14)
        sys.stdout.flush()

    def trace(self, id: str, lines: Sequence[Entry]) -> None:  # noqa: A002 # its name everywhere
        """The lines of one trace, and on one line more what it came to."""
        if self._json:
            self.lines(lines)
            return
        columns = TraceColumns(lines, self.look)
        for line, depth in zip(lines, depths(lines), strict=True):
            head = columns.head(line, depth)
            indent = min(32, sum(len(piece.text) for piece in head) + 1)
            self._line(head, columns.body(line), line, indent=indent)
        self._say(
            painted(
                [Piece(text=summary(id, lines, self.look), tone=Tone.BOLD)], colour=self._colour
            )
        )

    def _line(
        self, head: Sequence[Piece], body: Sequence[Piece], line: Entry, *, indent: int
    ) -> None:
        most = None if self.look.full else _MOST_ROWS
        for row in laid_out(head, body, width=self._width, indent=indent, most_rows=most):
            self._say(painted(row, colour=self._colour))
        if self.look.full:
            for text in stack_of(line):
                piece = Piece(text=f"    | {text}", tone=Tone.DIM)
                self._say(painted([piece], colour=self._colour))

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")

    def wait(self, seconds: float) -> bool:
        """Waits so long; false at once when whoever read the pipe has gone."""
        if self._poll is None:
            time.sleep(seconds)
            return True
        return not self._poll.poll(seconds * 1000)


def _hang_ups() -> select.poll | None:
    """Tells when the other end of standard output goes away; None where it has no other end."""
    try:
        found = select.poll()
        found.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return None
    return found
