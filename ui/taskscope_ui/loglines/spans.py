"""The lines of one trace in time: how long after the first, inside which span, and what it all came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from taskscope_exporters.logs.reading.entry import Entry
from taskscope_ui.loglines.line import Look, body_of, duration, level_of, when
from taskscope_ui.loglines.pieces import Piece, Tone, shown, width_of

__all__ = ["TraceColumns", "depths", "summary"]

_DEEPEST = 8
_BAD = frozenset({"error", "critical", "fatal"})


@dataclass(frozen=True, slots=True)
class _Extent:
    """From a span's first sign to its last, in microseconds since 1970."""

    first: int
    last: int

    def around(self, other: _Extent) -> bool:
        """Whether the other lies within, and is shorter."""
        return self.first <= other.first and other.last <= self.last and self != other


def _extents(lines: Sequence[Entry]) -> dict[str, _Extent]:
    """Lines name no parent span; but a span is seen from its first line, and its end says how long it took."""
    found: dict[str, _Extent] = {}
    for line in lines:
        span = line.text("span.id")
        if span:
            took = line.number("event.duration") or 0
            first, last = line.at - max(0, took) // 1000, line.at
            known = found.get(span)
            found[span] = (
                _Extent(first, last)
                if known is None
                else _Extent(min(first, known.first), max(last, known.last))
            )
    return found


def depths(lines: Sequence[Entry]) -> list[int]:
    """For each line, how many spans its own lies within, as far as the lines tell."""
    extents = _extents(lines)
    depth = {
        span: min(_DEEPEST, sum(other.around(extent) for other in extents.values()))
        for span, extent in extents.items()
    }
    return [depth.get(line.text("span.id"), 0) for line in lines]


class TraceColumns:
    """How the lines of one trace are shown; lines: all of them, in the order of time."""

    def __init__(self, lines: Sequence[Entry], look: Look) -> None:
        self.look = look
        self._start = lines[0].at
        self._offset = len(self._after(lines[-1]))
        services = {shown(line.text("service.name"))[:20] for line in lines}
        self._service = max(map(width_of, services)) if len(services) > 1 else 0
        self._took = max(len(_took(line)) for line in lines)

    def head(self, line: Entry, depth: int) -> list[Piece]:
        """The offset, the level, how long what the line tells of took, and the indentation."""
        level, tone = level_of(line)
        pieces = [
            Piece(text=f"{self._after(line):>{self._offset}} ms ", tone=Tone.DIM),
            Piece(text=f"{level:<5}", tone=tone),
        ]
        if self._service:
            name = shown(line.text("service.name"))[:20]
            gap = " " * (self._service - width_of(name))
            pieces.append(Piece(text=f" {name}{gap}", tone=Tone.NOTE))
        if self._took:
            pieces.append(Piece(text=f" {_took(line):>{self._took}}"))
        pieces.append(Piece(text="  " * depth))
        return pieces

    def body(self, line: Entry) -> list[Piece]:
        """The answer it tells of, what the line says, and the rest without what is the same in all lines."""
        said, *rest = body_of(line, self.look)
        answer = [Piece(text=shown(_answer(line)), tone=Tone.NOTE)] if _answer(line) else []
        if not self.look.full:
            rest = [each for each in rest if not each.text.startswith(("trace=", "request="))]
        return [*answer, said, *rest]

    def _after(self, line: Entry) -> str:
        return f"+{(line.at - self._start) / 1000:.1f}"


def _took(line: Entry) -> str:
    return duration(line.number("event.duration"))


def summary(id: str, lines: Sequence[Entry], look: Look) -> str:  # noqa: A002 # its name everywhere
    """What the trace came to: how many lines of which services, how long, how it was answered, what failed."""
    services = sorted({line.text("service.name") for line in lines} - {""})
    spans = {line.text("span.id") for line in lines} - {""}
    length = max(
        [lines[-1].at - lines[0].at]
        + [(line.number("event.duration") or 0) // 1000 for line in lines]
    )
    of = f" of {', '.join(services)}" if services else ""
    parts = [
        f"{id}: {_count(len(lines), 'line')}{of}",
        *([_count(len(spans), "span")] if spans else []),
        f"{duration(length * 1000)} from {when(lines[0].at, replace(look, wide=True))}",
        *_answers(lines),
        *_failures(lines),
    ]
    return shown(" · ".join(parts))


def _answers(lines: Sequence[Entry]) -> list[str]:
    """Each request of the trace and its answer; of more than three only how many there were."""
    found = [answer for answer in map(_answer, lines) if answer]
    return found if len(found) <= 3 else [_count(len(found), "request")]


def _answer(line: Entry) -> str:
    """`GET /tasks → 503 (timeout)`, of a line that tells of a request's end; nothing of another."""
    status = line.number("http.response.status_code")
    if status is None:
        return ""
    asked = f"{line.text('http.request.method')} {line.text('http.route')}".strip()
    outcome = line.text("labels.outcome")
    return f"{asked} → {status}{f' ({outcome})' if outcome not in ('', 'ok') else ''}".strip()


def _failures(lines: Sequence[Entry]) -> list[str]:
    bad = [line for line in lines if line.text("log.level").lower() in _BAD]
    kinds = sorted({line.text("error.type").removeprefix("builtins.") for line in bad} - {""})
    if not bad:
        return ["no error"]
    return [_count(len(bad), "error") + (f" ({', '.join(kinds)})" if kinds else "")]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
