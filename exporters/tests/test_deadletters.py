"""The dead-letter file: bounded, whole after any kill, and shared by a shipper and a replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.logs.segments import Batch, Line
from taskscope_exporters.logs import deadletters
from taskscope_exporters.logs.deadletters import (
    FILE_NAME,
    TAKEN_NAME,
    Letter,
    bury,
    only_replay,
    put_back,
    read_letters,
    take,
)
from taskscope_exporters.logs.portions import Named, Portion, portions_of

NOW = 1_767_225_600.0


def letter(n: int, raw: bytes = b'{"a":1}\n') -> Letter:
    return Letter(line=Line(id=f"id-{n}", raw=raw), kind="mapper_parsing_exception", reason="why")


def test_a_letter_says_what_when_and_why(tmp_path: Path) -> None:
    assert bury(tmp_path, [letter(1)], now=NOW) == 0
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {
        "id": "id-1",
        "error": {"type": "mapper_parsing_exception", "reason": "why"},
        "line": '{"a":1}\n',
        "at": "2026-01-01T00:00:00+00:00",
        "encoding": "utf-8",
    }
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_what_has_no_room_is_told_and_nothing_else_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "MOST_BYTES", 500)
    assert bury(tmp_path, [letter(n) for n in range(10)], now=NOW) == 7
    assert bury(tmp_path, [letter(10)], now=NOW) == 1
    assert len(read_letters(tmp_path / FILE_NAME)[0]) == 3
    assert (tmp_path / FILE_NAME).stat().st_size <= 500


def test_what_comes_while_letters_are_replayed_lies_there_afterwards(tmp_path: Path) -> None:
    bury(tmp_path, [letter(1), letter(2)], now=NOW)
    taken = take(tmp_path)
    assert taken == tmp_path / TAKEN_NAME
    bury(tmp_path, [letter(3)], now=NOW)
    assert take(tmp_path) == taken
    letters, strange = read_letters(taken)
    put_back(tmp_path, letters[1:], strange, now=NOW)
    assert [each.line.id for each in read_letters(tmp_path / FILE_NAME)[0]] == ["id-3", "id-2"]
    assert not taken.exists()


def test_half_a_letter_of_one_who_was_killed_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"id":"id-1","er')
    bury(tmp_path, [letter(1), letter(1), letter(2)], now=NOW)
    letters, strange = read_letters(tmp_path / FILE_NAME)
    assert [each.line.id for each in letters] == ["id-1", "id-2"]
    assert strange == [b'{"id":"id-1","er\n']


def test_of_two_replays_one_works(tmp_path: Path) -> None:
    with only_replay(tmp_path) as first, only_replay(tmp_path) as second:
        assert (first, second) == (True, False)
    with only_replay(tmp_path) as later:
        assert later


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    folder = tmp_path_factory.mktemp("letters")
    line = raw.replace(b"\n", b"") + b"\n"
    bury(folder, [letter(1, line)], now=NOW)
    assert read_letters(folder / FILE_NAME)[0][0].line.raw == line


raws = st.lists(st.binary(min_size=2, max_size=60).map(lambda raw: raw.replace(b"\n", b"%")))


@given(raws, st.integers(1, 10), st.integers(1, 200))
def test_portions_hold_every_line_once_in_order_and_within_their_bounds(
    lines: list[bytes], most: int, most_bytes: int
) -> None:
    offsets = [sum(len(raw) + 1 for raw in lines[:at]) for at in range(len(lines))]
    name = "0197a0000000-0123456789abcdef-000000.seg"
    batch = Batch(segment=name, end=0, raws=lines, offsets=offsets)
    portions = portions_of(batch, max_lines=most, max_bytes=most_bytes)
    assert [raw for portion in portions for raw in portion.raws] == lines
    assert [offset for portion in portions for offset in portion.offsets] == offsets
    for portion in portions:
        assert 1 <= len(portion) <= most
        size = sum(len(raw) + 1 for raw in portion.raws)
        assert size <= most_bytes or len(portion) == 1


@given(raws)
def test_a_body_is_the_same_whichever_way_it_is_made(lines: list[bytes]) -> None:
    offsets = [*range(0, 7 * len(lines), 7)]
    name = "0197a0000000-0123456789abcdef-000000.seg"
    portion = Portion(segment=name, raws=lines, offsets=offsets)
    named = Named(lines=[portion.line(place) for place in range(len(portion))])
    assert portion.body() == named.body()
    assert portion.ids() == named.ids()
