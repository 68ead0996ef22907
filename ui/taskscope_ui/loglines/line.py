"""One log line in columns: when, how grave, which answer in which time, where, what it says, and the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from taskscope_exporters.logs.reading.entry import Entry
from taskscope_exporters.logs.reading.words import ALIASES
from taskscope_ui.loglines.pieces import Piece, Tone, quoted, shown, width_of

__all__ = ["Columns", "Look", "body_of", "duration", "level_of", "stack_of", "when"]

_SHORT: Final = {field: name for name, field in ALIASES.items()}
_LEVELS: Final = {
    "debug": ("DEBUG", Tone.DIM),
    "info": ("INFO", Tone.GOOD),
    "warning": ("WARN", Tone.WARN),
    "warn": ("WARN", Tone.WARN),
    "error": ("ERROR", Tone.BAD),
    "critical": ("CRIT", Tone.WORST),
    "fatal": ("CRIT", Tone.WORST),
}
_KEY: Final = re.compile(r"[\w.@\-]+", re.ASCII)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

# What stands in a column, or is the same in every line of a service; `--full` shows that as well.
_IN_COLUMNS: Final = frozenset(
    {
        "@timestamp",
        "log.level",
        "message",
        "event.duration",
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "error.type",
        "error.message",
        "error.stack_trace",
    }
)
_EVERYWHERE: Final = frozenset(
    {
        "ecs.version",
        "event.dataset",
        "event.outcome",
        "http.response.body.bytes",
        "log.logger",
        "process.pid",
        "process.name",
        "process.thread.name",
        "service.environment",
        "service.name",
        "service.node.name",
        "service.version",
        "span.id",
    }
)
_FRAMES: Final = "error.frames"  # the stack trace says the same for a person
_FIRST: Final = ("trace.id", "http.request.id")
_LONGEST: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How lines are shown. zone: None for this machine's; today: lines of this day show no date, None shows it always.

    full: nothing is left out. wide: for a program or a file: the whole time, and no text is shortened.
    """

    zone: tzinfo | None = None
    today: date | None = None
    full: bool = False
    wide: bool = False


class Columns:
    """The widths of the columns; they grow with what is shown, so that lines stay below each other."""

    def __init__(self, look: Look, *, most_route: int = 32) -> None:
        self.look = look
        self._most_route = most_route
        self._route = 0
        self._service = 0
        self._answers = False
        self._services: set[str] = set()

    def fit(self, lines: Sequence[Entry]) -> None:
        """The lines have room."""
        for line in lines:
            self._answers = self._answers or _has_answer(line)
            self._route = max(self._route, width_of(self._where(line)))
            self._services.add(line.text("service.name"))
        if len(self._services) > 1:
            self._service = max(width_of(shown(name)[:20]) for name in self._services)

    def head(self, line: Entry) -> list[Piece]:
        """The columns before the message."""
        level, tone = level_of(line)
        pieces = [
            Piece(text=f"{when(line.at, self.look)} ", tone=Tone.DIM),
            Piece(text=f"{level:<5}", tone=tone),
        ]
        if self._service:
            name = shown(line.text("service.name"))[:20]
            pieces.append(Piece(text=f" {_padded(name, self._service)}", tone=Tone.NOTE))
        if self._answers:
            status = line.number("http.response.status_code")
            pieces += [
                Piece(text=f" {status or '':>3}", tone=_tone_of(status)),
                Piece(text=f" {duration(line.number('event.duration')):>7}"),
            ]
        if self._route:
            pieces.append(Piece(text=f" {_padded(self._where(line), self._route)}", tone=Tone.NOTE))
        return pieces

    def _where(self, line: Entry) -> str:
        text = f"{line.text('http.request.method')} {line.text('http.route')}"
        return _cut_middle(shown(text.strip()), None if self.look.wide else self._most_route)


def when(at: int, look: Look) -> str:
    """A time in microseconds since 1970, to the millisecond."""
    try:
        moment = (_EPOCH + timedelta(microseconds=at)).astimezone(look.zone)
    except (OverflowError, ValueError, OSError):
        return "no time"
    if look.wide:
        text = moment.isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z") if look.zone is not None else text
    clock = moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    return clock if moment.date() == look.today else f"{moment:%m-%d} {clock}"


def level_of(line: Entry) -> tuple[str, Tone]:
    """The level in at most five letters."""
    word = line.text("log.level").lower()
    return _LEVELS.get(word, (shown(word.upper())[:5], Tone.PLAIN))


def duration(nanoseconds: int | None) -> str:
    """Three digits and a unit: `870µs`, `34.2ms`, `1.25s`, `125s`; nothing for none."""
    if nanoseconds is None or nanoseconds < 0:
        return ""
    for unit, length in (("s", 1_000_000_000), ("ms", 1_000_000)):
        if nanoseconds >= length:
            value = nanoseconds / length
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f}{unit}"
    return f"{nanoseconds // 1000}µs"


def body_of(line: Entry, look: Look) -> list[Piece]:
    """What the line says, its exception, and the rest as `key=value`, the ids first."""
    said, kind = line.text("message"), line.text("error.type")
    pieces = [Piece(text=f"{shown(said)}{':' if said and kind else ''}", tone=Tone.BOLD)]
    if kind:
        words = [kind.removeprefix("builtins."), line.text("error.message")]
        text = ": ".join(word for word in words if word)
        pieces.append(Piece(text=_shortened(shown(text), look, 4 * _LONGEST), tone=Tone.BAD))
    pieces += [Piece(text=text, tone=Tone.DIM) for text in _rest(line, look)]
    return pieces


def _rest(line: Entry, look: Look) -> Iterator[str]:
    for name in _FIRST:
        if line.text(name):
            yield f"{_SHORT[name]}={quoted(line.text(name))}"
    hidden = _IN_COLUMNS if look.full else _IN_COLUMNS | _EVERYWHERE
    for name, value in line.fields.items():
        if name in hidden or name in _FIRST or name.startswith(_FRAMES) or value is None:
            continue
        if name == "url.path" and value == line.text("http.route") and not look.full:
            continue
        if name == "labels.outcome" and value in ("ok", "client_error") and not look.full:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"{_key(name)}={quoted(_shortened(text, look, _LONGEST))}"


def _key(name: str) -> str:
    short = _SHORT.get(name, name)
    if name.startswith("labels."):
        own = name.removeprefix("labels.")
        short = name if own in ALIASES else own
    return short if _KEY.fullmatch(short) else f'"{shown(short)}"'


def stack_of(line: Entry) -> list[str]:
    """The lines of its stack trace, harmless each; none if it has none."""
    text = line.text("error.stack_trace")
    return [shown(row.replace("\t", "    ")) for row in text.rstrip("\n").split("\n") if row]


def _has_answer(line: Entry) -> bool:
    return bool(line.number("http.response.status_code")) or bool(line.number("event.duration"))


def _tone_of(status: int | None) -> Tone:
    if status is None or status < 400:
        return Tone.PLAIN
    return Tone.BAD if status >= 500 else Tone.WARN


def _shortened(text: str, look: Look, limit: int) -> str:
    return text if look.wide or look.full or len(text) <= limit else f"{text[: limit - 1]}…"


def _cut_middle(text: str, limit: int | None) -> str:
    if limit is None or width_of(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-(limit - 1 - half) :]}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))
