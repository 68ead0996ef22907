"""What a report says of each thing that may be done to audit lines: which, where, and by what it is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskscope.audit import Audited, AuditKey, Break, verify

from .audit_worlds import KEY, checked, die, found, heads, trail, written

Lines = list[Audited]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """Two runs after one another: places 0 to 3, the last one a closing line, and 0 to 2, which are open."""
    first = trail(tmp_path)
    assert first.record("user.login")
    assert first.record("task.deleted")
    first.close()
    second = trail(tmp_path)
    assert second.record("user.login")
    assert second.record("user.logout")
    yield tmp_path
    second.close()


def places(lines: Lines) -> list[tuple[str, int]]:
    return [
        (str(line.document["audit.chain"]), int(str(line.document["audit.sequence"])))
        for line in lines
    ]


def put(line: Audited, **fields: object) -> Audited:
    return Audited(id=line.id, document={**line.document, **fields})


def test_an_untouched_trail_is_intact_and_its_open_run_is_told(spool: Path) -> None:
    report = checked(spool)
    assert (report.intact, report.chains, report.lines) == (True, 2, 7)
    assert report.open == (places(written(spool))[-1][0],)
    assert report.first < report.last


def test_a_changed_line_is_told_with_its_place_and_id(spool: Path) -> None:
    lines = written(spool)
    lines[1] = put(lines[1], **{"event.outcome": "failure"})
    assert checked(spool, lines).breaks == (
        Break(
            kind=checked(spool, lines).breaks[0].kind,
            chain=places(lines)[1][0],
            sequence=1,
            last=1,
            id=lines[1].id,
            said="its hash does not hold",
        ),
    )
    assert found(checked(spool, lines)) == [("changed", 1, 1)]


def test_lines_that_are_gone_from_the_middle_are_told_from_where_to_where(spool: Path) -> None:
    lines = written(spool)
    assert found(checked(spool, [lines[0], *lines[3:]])) == [("removed", 1, 2)]


def test_the_end_of_a_closed_run_that_is_gone_is_told_by_the_run_after_it(spool: Path) -> None:
    lines = written(spool)
    report = verify([*lines[:2], *lines[4:]], [KEY])
    assert found(report) == [("removed", 2, 3)]
    assert report.breaks[0].id == lines[4].id  # the line that shows it
    assert places(lines)[4][0] in report.breaks[0].said


def test_the_end_of_a_run_that_is_still_written_is_told_by_the_folder(spool: Path) -> None:
    lines = written(spool)[:-1]
    assert verify(lines, [KEY]).intact  # from the lines alone nobody could know
    assert found(checked(spool, lines)) == [("removed", 2, 2)]


def test_a_whole_run_that_is_gone_is_told(spool: Path) -> None:
    lines = written(spool)
    assert found(verify(lines[4:], [KEY])) == [("run removed", 0, 3)]
    assert found(checked(spool, lines[:4])) == [("run removed", 0, 2)]
    assert found(checked(spool, [])) == [("run removed", 0, 2)]


def test_a_line_put_in_is_told_be_it_a_copy_a_forgery_or_none_of_ours(spool: Path) -> None:
    lines = written(spool)
    copy = Audited(id="copy", document=lines[1].document)
    forged = Audited(id="forged", document={**lines[2].document, "message": "nothing happened"})
    strange = Audited(id="strange", document={"message": "hello"})
    report = checked(spool, [*lines, copy, forged, strange])
    assert sorted((each.kind.value, each.sequence, each.id) for each in report.breaks) == [
        ("inserted", -1, "strange"),
        ("inserted", 1, "copy"),
        ("inserted", 2, "forged"),
    ]


def test_two_lines_that_changed_places_are_told_with_the_places_they_had(spool: Path) -> None:
    lines = written(spool)
    moved = ("audit.sequence", "audit.previous")
    one, other = lines[1], lines[2]
    lines[1] = put(one, **{name: other.document[name] for name in moved})
    lines[2] = put(other, **{name: one.document[name] for name in moved})
    report = checked(spool, lines)
    assert found(report) == [("reordered", 1, 1), ("reordered", 2, 2)]
    assert [each.said for each in report.breaks] == [
        "it was written as 2",
        "it was written as 1",
    ]


def test_two_runs_that_follow_one_are_told(spool: Path, tmp_path: Path) -> None:
    """Only who has the key can do that: a folder that was copied, and went on twice."""
    lines = written(spool)
    other = dict(lines[4].document) | {"audit.chain": "f" * 32}
    twin = Audited(id="twin", document={**other, "audit.hash": KEY.hash(other)})
    report = verify([*lines, twin], [KEY])
    (break_,) = report.breaks
    assert (break_.kind.value, break_.chain) == ("forked", places(lines)[0][0])
    assert places(lines)[4][0] in break_.said
    assert "f" * 32 in break_.said


def test_what_holds_but_does_not_follow_is_told(spool: Path) -> None:
    """Only who has the key can do that."""
    lines = written(spool)
    other = dict(lines[1].document) | {"message": "another"}
    lines[1] = Audited(id=lines[1].id, document={**other, "audit.hash": KEY.hash(other)})
    assert found(checked(spool, lines)) == [("detached", 2, 2)]
    after = dict(lines[3].document) | {
        "audit.sequence": 4,
        "audit.previous": lines[3].document["audit.hash"],
    }
    late = Audited(id="late", document={**after, "audit.hash": KEY.hash(after)})
    report = verify([*written(spool), late], [KEY])
    assert [(each.kind.value, each.id, each.said) for each in report.breaks] == [
        ("inserted", "late", "it follows a closing line")
    ]


def test_lines_of_a_key_that_is_not_given_cannot_be_checked_and_are_not_intact(spool: Path) -> None:
    other = AuditKey(b"another key, of the service's new host")
    report = verify(written(spool), [other], heads=heads(spool))
    assert (report.breaks, report.unknown_keys, report.intact) == ((), (KEY.name,), False)
    assert verify(written(spool), [other, KEY]).intact


def test_one_line_of_a_chain_that_names_another_key_was_changed(spool: Path) -> None:
    lines = written(spool)
    lines[2] = put(lines[2], **{"audit.key": "0123456789abcdef"})
    report = checked(spool, lines)
    assert (found(report), report.unknown_keys) == ([("changed", 2, 2)], ())


def test_what_was_lost_when_the_machine_went_down_is_told_and_no_break(tmp_path: Path) -> None:
    first = trail(tmp_path)
    assert first.record("user.login")
    assert first.record("user.logout")
    die(first)
    (head,) = (tmp_path / "audit").glob("*.head")
    boot = head.read_bytes()
    head.write_bytes(boot.replace(boot.split()[2], b"0" * 36))
    lines = written(tmp_path)
    second = trail(tmp_path)
    assert second.record("user.login")
    second.close()
    report = verify([*lines[:2], *written(tmp_path)[3:]], [KEY])
    assert (report.breaks, len(report.notes)) == ((), 1)
    assert "lacks 2 to 2 at its end: lost when the machine went down" in report.notes[0]


def test_runs_before_those_that_were_asked_for_need_not_be_there(spool: Path) -> None:
    lines = written(spool)
    asked = {places(lines)[4][0]}
    assert verify(lines[4:], [KEY], without_before=asked).intact


def test_a_run_takes_up_all_that_ended_before_it_and_none_is_taken_twice(tmp_path: Path) -> None:
    workers = [trail(tmp_path) for _ in range(3)]
    for worker in workers:
        assert worker.record("user.login")
    for worker in workers[:2]:
        worker.close()
    die(workers[2])
    after = [trail(tmp_path) for _ in range(3)]
    for worker in after:
        assert worker.record("user.login")
    named = [
        len(line.document["audit.predecessors"])
        for line in written(tmp_path)
        if line.document["event.action"] == "audit.run.opened"
    ]
    assert named == [0, 0, 0, 3, 0, 0]
    assert len(heads(tmp_path)) == 3
    lines = written(tmp_path)
    chains = list(dict.fromkeys(chain for chain, _ in places(lines)))
    for gone in chains[:3]:
        left = [line for line in lines if line.document["audit.chain"] != gone]
        assert [kind for kind, _, _ in found(verify(left, [KEY]))] == ["run removed"]
    for worker in after:
        worker.close()
    assert checked(tmp_path).intact
