"""Counts the events of an event stream from the pieces it is sent in. Read by `streams`."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["EventCounter"]

_KEPT: Final = 8
"""As much of an unfinished line as tells whether it is empty or carries data."""
_ENDS: Final = re.compile(rb"\r\n|\r|\n")


class EventCounter:
    """An event is what a blank line ends and has data, as browsers read it; a comment to keep alive is none.

    Remembers a few bytes, however long a line is.
    """

    __slots__ = ("_after_return", "_has_data", "_line")

    def __init__(self) -> None:
        self._line = b""
        self._has_data = False
        self._after_return = False

    def feed(self, piece: bytes) -> int:
        """How many events this piece completes."""
        if not piece:
            return 0
        half = self._after_return and piece[:1] == b"\n"
        self._after_return = piece[-1:] == b"\r"
        if half:
            piece = piece[1:]  # the other half of a line's end that was counted
        *lines, rest = _ENDS.split(piece)
        if not lines:
            self._keep(rest)
            return 0
        lines[0] = self._line + lines[0]
        self._line = rest[:_KEPT]
        return sum(map(self._ends_event, lines))

    def _keep(self, more: bytes) -> None:
        if len(self._line) < _KEPT:
            self._line = (self._line + more)[:_KEPT]

    def _ends_event(self, line: bytes) -> bool:
        if line:
            self._has_data = self._has_data or line == b"data" or line.startswith(b"data:")
            return False
        ended, self._has_data = self._has_data, False
        return ended
