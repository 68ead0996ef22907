"""What writers recorded against what Elasticsearch holds, as a verdict, and verdicts as a table."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "DROPPED",
    "END",
    "STORED",
    "Outcome",
    "Record",
    "judged",
    "number",
    "read_records",
    "table",
]

STORED: Final = ".stored"
DROPPED: Final = ".dropped"
END: Final = ".end"

_CODE: Final = "Q"
_SHOWN: Final = 5


def number(n: int) -> bytes:
    """A line's number as it stands in a record of stored ones."""
    return array(_CODE, [n]).tobytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one writer kept of its lines.

    stored: the numbers of the lines that were answered as stored. dropped: reasons by number. attempts: how many lines
    there were, None for a writer that was killed, which may have stored one more than it recorded.
    """

    writer: str
    stored: frozenset[int]
    dropped: Mapping[int, str]
    attempts: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One cell's counts: lines answered as stored, documents of theirs, and what does not agree.

    lost: stored, and no document. twice: documents beyond the first of a line. unasked: documents of lines that no
    writer recorded, of which a killed writer may leave one each; strange: those beyond that. unexplained: attempts
    that are neither stored nor dropped. dropped: told as dropped, counted; dropping: whether the cell may drop.
    fault: why the cell did not go its way, or empty.
    """

    cell: str
    round: int
    stored: int
    documents: int
    lost: int
    twice: int
    dropped: int
    unasked: int
    strange: int
    unexplained: int
    dropping: bool = False
    seconds: float = 0.0
    note: str = ""
    fault: str = ""

    @property
    def holds(self) -> bool:
        """Every line that was answered as stored is there once, and every other one was told as dropped."""
        wrong = self.lost or self.twice or self.strange or self.unexplained
        dropped_as_meant = bool(self.dropped) == self.dropping
        return not wrong and dropped_as_meant and not self.fault and self.stored > 0


def read_records(folder: Path) -> list[Record]:
    """The records of all writers that kept theirs in `folder`."""
    return [_record(folder, path) for path in sorted(folder.glob(f"*{STORED}"))]


def _record(folder: Path, path: Path) -> Record:
    name = path.name.removesuffix(STORED)
    stored = array(_CODE)
    kept = path.read_bytes()
    stored.frombytes(kept[: len(kept) - len(kept) % stored.itemsize])
    dropped = {}
    for text in (folder / f"{name}{DROPPED}").read_text().splitlines():
        n, _, reason = text.partition(" ")
        dropped[int(n)] = reason
    end = folder / f"{name}{END}"
    return Record(
        writer=name,
        stored=frozenset(stored),
        dropped=dropped,
        attempts=int(end.read_text()) if end.exists() else None,
    )


def judged(
    records: Iterable[Record],
    found: Mapping[tuple[str, int], int],
    *,
    cell: str,
    round_: int = 1,
    dropping: bool = False,
    seconds: float = 0.0,
    note: str = "",
    fault: str = "",
) -> Outcome:
    """The verdict over a cell. found: documents by writer and number."""
    records = list(records)
    stored = {(record.writer, n) for record in records for n in record.stored}
    missing = sorted(stored - found.keys())
    unasked = Counter(writer for writer, n in found.keys() - stored)
    killed = {record.writer for record in records if record.attempts is None}
    strange = sum(count - (writer in killed) for writer, count in unasked.items())
    notes = [note] if note else []
    if missing:
        notes.append("lost " + ", ".join(f"{writer}:{n}" for writer, n in missing[:_SHOWN]))
    return Outcome(
        cell=cell,
        round=round_,
        stored=len(stored),
        documents=sum(found.values()),
        lost=len(missing),
        twice=sum(count - 1 for count in found.values()),
        dropped=sum(len(record.dropped) for record in records),
        unasked=unasked.total(),
        strange=strange,
        unexplained=sum(_unexplained(record) for record in records),
        dropping=dropping,
        seconds=seconds,
        note="; ".join(notes),
        fault=fault,
    )


def _unexplained(record: Record) -> int:
    """How many attempts are recorded neither as stored nor as dropped, or as both."""
    answered = len(record.stored) + len(record.dropped)
    if record.attempts is None:
        return len(record.stored & record.dropped.keys())
    silent = sum(reason == "unanswered" for reason in record.dropped.values())
    return abs(record.attempts - answered) + silent


def table(outcomes: Sequence[Outcome]) -> str:
    """The counts of each cell and round, aligned, and one line that sums them up."""
    head = ("cell", "round", "stored", "documents", "lost", "twice", "dropped", "unasked", "s", "")
    rows = [head, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head) - 1)]
    lines = [
        "  ".join(
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=False))
        )
        + f"  {row[-1]}".rstrip()
        for row in rows
    ]
    failed = sum(not outcome.holds for outcome in outcomes)
    lines.append(
        f"{sum(outcome.stored for outcome in outcomes):,} lines in {len(outcomes)} runs: "
        f"{sum(outcome.lost for outcome in outcomes):,} lost, {sum(outcome.twice for outcome in outcomes):,} twice; "
        + (f"{failed} FAILED" if failed else "all held")
    )
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    wrong = [
        *([f"{outcome.strange} documents that nobody wrote"] if outcome.strange else []),
        *([f"{outcome.unexplained} lines without an answer"] if outcome.unexplained else []),
        *(["nothing was dropped"] if outcome.dropping and not outcome.dropped else []),
        *(["dropped lines"] if outcome.dropped and not outcome.dropping else []),
        *([outcome.fault] if outcome.fault else []),
    ]
    said = "; ".join([part for part in (*wrong, outcome.note) if part])
    return (
        outcome.cell,
        str(outcome.round),
        *(
            f"{count:,}"
            for count in (
                outcome.stored,
                outcome.documents,
                outcome.lost,
                outcome.twice,
                outcome.dropped,
                outcome.unasked,
            )
        ),
        f"{outcome.seconds:.0f}",
        ("held" if outcome.holds else "FAILED") + (f": {said}" if said else ""),
    )
