"""What the spool's files are called, and what a name says. Writer and reader meet here.

`<milliseconds since 1970>-<run>-<sequence>.seg`, all in hexadecimal. The run is random and new with each process,
so no name ever comes again; within a run the sequence is the order, whatever the clock did.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "ACKNOWLEDGED",
    "DRAFT",
    "LATER_NAME",
    "SEGMENT",
    "SEGMENT_NAME",
    "began_at",
    "line_id",
    "segment_name",
    "turn",
    "writer",
]

SEGMENT: Final = ".seg"
ACKNOWLEDGED: Final = ".ack"
DRAFT: Final = ".new"

SEGMENT_NAME: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}-[0-9a-f]{6,12}\.seg\Z")
"""A segment of this format: lines of JSON, each with its line break, nothing else."""
LATER_NAME: Final = re.compile(r"[0-9a-zA-Z_.-]{1,200}\.seg[0-9]{1,4}\Z")
"""A segment of a format that is not known yet: another format takes a number behind the ending."""

_LATEST_MS: Final = (1 << 48) - 1


def segment_name(*, ms: int, run: str, sequence: int) -> str:
    """What a segment is called; ms: milliseconds since 1970, for people and for the age of a line without a stamp."""
    return f"{min(max(ms, 0), _LATEST_MS):012x}-{run}-{sequence:06x}{SEGMENT}"


def writer(name: str) -> str:
    """The run in a segment's name: all segments of one writer share it, and no other's."""
    return name.split("-")[1]


def turn(name: str) -> int:
    """The place of a segment among its writer's."""
    return int(name.removesuffix(SEGMENT).rsplit("-", 1)[1], 16)


def began_at(name: str) -> float:
    """When the segment was begun by its writer's clock, in seconds since 1970."""
    return int(name[:12], 16) / 1000


def line_id(name: str, offset: int) -> str:
    """The id of the line that begins at the offset: the same whoever reads it, and no other line's ever."""
    return f"{name.removesuffix(SEGMENT)}-{offset:x}"
