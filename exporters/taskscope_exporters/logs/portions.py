"""Lines that go in one bulk request, under the ids that make a second sending harmless."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskscope.logs.names import SEGMENT, line_id
from taskscope.logs.segments import Batch, Line

__all__ = ["Named", "Portion", "Sendable", "portions_of"]


class Sendable(Protocol):
    """Lines with their ids, in an order; a place is a number within it."""

    def __len__(self) -> int: ...

    def body(self) -> bytes:
        """The request's body: for each line an action that creates it under its id, then the line as it is."""
        ...

    def ids(self) -> list[str]:
        """The ids, in order."""
        ...

    def line(self, place: int) -> Line:
        """The line at a place."""
        ...

    def only(self, places: Sequence[int]) -> Sendable:
        """The lines at some places, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Lines of one segment. raws: without their breaks; offsets: where in the segment each begins."""

    segment: str
    raws: Sequence[bytes]
    offsets: Sequence[int]

    def __len__(self) -> int:
        return len(self.raws)

    @property
    def end(self) -> int:
        """The offset behind its last line."""
        return self.offsets[-1] + len(self.raws[-1]) + 1

    def body(self) -> bytes:
        # One format for all lines: a third of what one for each takes.
        stem = self.segment.removesuffix(SEGMENT).encode("ascii")
        values: list[int | bytes] = [0] * (2 * len(self.raws))
        values[::2] = self.offsets
        values[1::2] = self.raws
        return (b'{"create":{"_id":"%b-%%x"}}\n%%b\n' % stem) * len(self.raws) % (*values,)

    def ids(self) -> list[str]:
        return [line_id(self.segment, offset) for offset in self.offsets]

    def line(self, place: int) -> Line:
        return Line(
            id=line_id(self.segment, self.offsets[place]), raw=bytes(self.raws[place]) + b"\n"
        )

    def only(self, places: Sequence[int]) -> Portion:
        return Portion(
            segment=self.segment,
            raws=[self.raws[place] for place in places],
            offsets=[self.offsets[place] for place in places],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Lines from anywhere, each with its id."""

    lines: Sequence[Line]

    def __len__(self) -> int:
        return len(self.lines)

    def body(self) -> bytes:
        return b"".join(
            b'{"create":{"_id":"%b"}}\n%b' % (line.id.encode("ascii"), line.raw)
            for line in self.lines
        )

    def ids(self) -> list[str]:
        return [line.id for line in self.lines]

    def line(self, place: int) -> Line:
        return self.lines[place]

    def only(self, places: Sequence[int]) -> Named:
        return Named(lines=[self.lines[place] for place in places])


def portions_of(batch: Batch, *, max_lines: int, max_bytes: int) -> list[Portion]:
    """The batch's lines in portions within these bounds; a line is never split, however long it is."""
    found: list[Portion] = []
    start = 0
    for end in _ends(map(len, batch.raws), max_lines, max_bytes):
        found.append(
            Portion(
                segment=batch.segment,
                raws=batch.raws[start:end],
                offsets=batch.offsets[start:end],
            )
        )
        start = end
    return found


def _ends(sizes: Iterable[int], max_lines: int, max_bytes: int) -> list[int]:
    """Behind which line each portion ends."""
    ends: list[int] = []
    count = total = place = 0
    for size in sizes:
        total += size + 1
        if count and (count == max_lines or total > max_bytes):
            ends.append(place)
            count, total = 0, size + 1
        count += 1
        place += 1
    return [*ends, place] if count else ends
