"""What has been counted so far: totals by label values, and their file, from which a next start goes on.

The file is on disk before a total is shown. A total that Prometheus has seen and that came back smaller would be
taken for a restart from 0, and its whole value for new lines.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import TaskscopeError
from taskscope_exporters.logs.aggregates import Counts, Pair
from taskscope_exporters.logs.marks import Marks

__all__ = ["MOST_PAIRS", "Tally", "TallyError", "load", "save"]

MOST_PAIRS: Final = 500
"""Pairs of label values of one metric; lines of further ones are counted under `__overflow__`."""

_FOLDED: Final = (OVERFLOW, OVERFLOW)
_VERSION: Final = 1
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class TallyError(TaskscopeError):
    """For whoever runs the collector: the file of its counts is not one, or of another stream."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Totals since the collector's first start, and up to where they reach. Grows only."""

    marks: Marks = field(default_factory=Marks)
    lines: Counter[Pair] = field(default_factory=Counter)
    errors: Counter[Pair] = field(default_factory=Counter)

    def plus(self, marks: Marks, found: tuple[Counts, ...]) -> Tally:
        """A tally with these counts added, which reaches to `marks`; this one is as it was."""
        lines, errors = Counter(self.lines), Counter(self.errors)
        for counts in found:
            _add(lines, counts.lines)
            _add(errors, counts.errors)
        return Tally(marks=marks, lines=lines, errors=errors)


def _add(totals: Counter[Pair], found: Counter[Pair]) -> None:
    for pair, count in sorted(found.items()):
        known = pair in totals or len(totals) < MOST_PAIRS
        totals[pair if known else _FOLDED] += count


def save(path: Path, stream: str, tally: Tally) -> None:
    """The tally is on disk under `path`, whole or not at all. Raises OSError if it is not."""
    text = json.dumps(
        {
            "version": _VERSION,
            "stream": stream,
            "marks": tally.marks.counted,
            "newest": tally.marks.newest,
            "began": tally.marks.began,
            "lines": [[*pair, count] for pair, count in sorted(tally.lines.items())],
            "errors": [[*pair, count] for pair, count in sorted(tally.errors.items())],
        },
        ensure_ascii=True,
    )
    beside = path.with_suffix(".new")
    fd = os.open(beside, _FLAGS, 0o600)
    try:
        _write_all(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.replace(path)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def load(path: Path, stream: str) -> Tally | None:
    """What `save` wrote; None where there is no file. Raises OSError, or TallyError if it is not such a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        text = file.read()
    try:
        return _read(json.loads(text), stream)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TallyError(
            f"{path} is no file of counts of {stream} ({type(error).__name__}: {error!s:.100}); move it away, "
            "and counting begins anew"
        ) from error


def _read(told: dict[str, Any], stream: str) -> Tally:
    if (told["version"], told["stream"]) != (_VERSION, stream):
        raise ValueError(f"of version {told['version']!r} and stream {told['stream']!r}")
    return Tally(
        marks=Marks(
            counted={str(key): int(mark) for key, mark in told["marks"].items()},
            newest=int(told["newest"]),
            began=bool(told["began"]),
        ),
        lines=_counter(told["lines"]),
        errors=_counter(told["errors"]),
    )


def _counter(rows: list[list[object]]) -> Counter[Pair]:
    return Counter({(str(a), str(b)): int(str(count)) for a, b, count in rows})
