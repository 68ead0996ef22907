"""The verdict over a cell of the loss matrix: every kind of disagreement is found, and nothing else is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from taskscope.testing.loss import Outcome, Record, judged, table
from taskscope.testing.loss.outcome import number, read_records


def record(*stored: int, writer: str = "a", attempts: int | None = 3, **dropped: int) -> Record:
    return Record(
        writer=writer,
        stored=frozenset(stored),
        dropped={n: reason for reason, n in dropped.items()},
        attempts=attempts,
    )


def found(*numbers: int, writer: str = "a") -> Counter[tuple[str, int]]:
    return Counter((writer, n) for n in numbers)


def verdict(kept: Record, documents: Counter[tuple[str, int]], **more: bool) -> Outcome:
    return judged([kept], documents, cell="cell", **more)  # type: ignore[arg-type] # `dropping` alone


def test_what_is_there_once_holds() -> None:
    outcome = verdict(record(0, 1, 2), found(0, 1, 2))
    assert outcome.holds
    assert (outcome.stored, outcome.documents) == (3, 3)
    assert table([outcome]).endswith("3 lines in 1 runs: 0 lost, 0 twice; all held")


def test_a_stored_line_without_a_document_is_lost() -> None:
    outcome = verdict(record(0, 1, 2), found(0, 2))
    assert (outcome.lost, outcome.holds) == (1, False)
    assert "lost a:1" in table([outcome])


def test_a_line_with_two_documents_is_stored_twice() -> None:
    outcome = verdict(record(0, 1, 2), found(0, 1, 1, 2))
    assert (outcome.twice, outcome.lost, outcome.holds) == (1, 0, False)


def test_a_lost_line_is_not_made_up_for_by_another_one_stored_twice() -> None:
    outcome = verdict(record(0, 1, 2), found(0, 1, 1))
    assert (outcome.lost, outcome.twice, outcome.documents) == (1, 1, 3)


def test_a_killed_writer_may_leave_one_line_that_it_had_no_time_to_record() -> None:
    assert verdict(record(0, 1, attempts=None), found(0, 1, 2)).holds
    assert verdict(record(0, 1, attempts=None), found(0, 1, 2, 3)).strange == 1
    assert verdict(record(0, 1, attempts=2), found(0, 1, 2)).strange == 1


def test_a_dropped_line_counts_only_where_lines_may_be_dropped() -> None:
    kept = record(0, 1, write_error=2)
    assert verdict(kept, found(0, 1), dropping=True).holds
    assert not verdict(kept, found(0, 1)).holds
    assert not verdict(record(0, 1, 2), found(0, 1, 2), dropping=True).holds


def test_a_dropped_line_that_is_there_all_the_same_is_strange() -> None:
    assert verdict(record(0, 1, write_error=2), found(0, 1, 2), dropping=True).strange == 1


@pytest.mark.parametrize("kept", [record(0, 1), record(0, 1, unanswered=2)])
def test_an_attempt_without_an_answer_is_told(kept: Record) -> None:
    outcome = verdict(kept, found(0, 1), dropping=bool(kept.dropped))
    assert (outcome.unexplained, outcome.holds) == (1, False)


def test_a_cell_in_which_nothing_was_written_does_not_hold() -> None:
    assert not verdict(record(attempts=0), found()).holds


def test_a_record_is_read_as_it_was_kept_also_of_a_writer_killed_within_a_number(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.stored").write_bytes(number(0) + number(70_000) + number(5)[:3])
    (tmp_path / "a.dropped").write_text("1 spool_full\n")
    (tmp_path / "b.stored").write_bytes(number(0))
    (tmp_path / "b.dropped").touch()
    (tmp_path / "b.end").write_text("1\n")
    killed, ended = read_records(tmp_path)
    assert killed == Record(
        writer="a", stored=frozenset({0, 70_000}), dropped={1: "spool_full"}, attempts=None
    )
    assert ended == Record(writer="b", stored=frozenset({0}), dropped={}, attempts=1)
