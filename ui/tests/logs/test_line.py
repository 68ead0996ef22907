"""How one line looks: harmless whatever it holds, in columns, within the width, with nothing lost in a pipe."""

from __future__ import annotations

import json
from datetime import UTC, date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope_exporters.logs.reading.entry import Entry, entry
from taskscope_ui.commands.logs_screen import as_json
from taskscope_ui.loglines.line import Columns, Look, body_of, duration, stack_of, when
from taskscope_ui.loglines.pieces import Piece, Tone, laid_out, painted, quoted, shown, width_of
from taskscope_ui.loglines.spans import TraceColumns, depths, summary

PIPE = Look(zone=UTC, wide=True)
SCREEN = Look(zone=UTC, today=date(2026, 11, 24))
HOSTILE = [
    "\x1b[2J",
    "\r\n",
    "\x9b31m",
    "\u202e",
    "\u2028",
    "\x00",
    "\x7f",
    "\ud800",
    "\u200b",
    "\t",
]


def line(at: str = "03:12:45.123456", **fields: object) -> Entry:
    return entry("id", {"@timestamp": f"2026-11-24T{at}Z", "service.name": "shop", **fields})


def text(found: Entry, look: Look = PIPE) -> str:
    columns = Columns(look)
    columns.fit([found])
    (row,) = laid_out(columns.head(found), body_of(found, look), width=None, indent=0)
    return painted(row, colour=False)


def test_a_request_is_told_in_columns() -> None:
    served = line(
        message="request served",
        **{"log.level": "error", "http.request.method": "GET", "http.route": "/tasks/{id}",
           "http.response.status_code": 503, "event.duration": 34_210_000, "url.path": "/tasks/7",
           "trace.id": "abc", "labels": {"outcome": "timeout", "attempt": 2}},
    )  # fmt: skip
    assert text(served) == (
        "2026-11-24T03:12:45.123Z ERROR 503  34.2ms GET /tasks/{id} request served trace=abc path=/tasks/7 "
        "outcome=timeout attempt=2"
    )
    assert text(served, SCREEN).startswith("03:12:45.123 ERROR 503  34.2ms GET /tasks/{id} request")


def test_an_exception_stands_behind_what_was_said() -> None:
    failed = line(
        message="order failed",
        **{"error.type": "builtins.ValueError", "error.message": "no\nsuch", "error.stack_trace": "a\n\tb\r\n"},
    )  # fmt: skip
    assert text(failed) == "2026-11-24T03:12:45.123Z       order failed: ValueError: no\\nsuch"
    assert stack_of(failed) == ["a", "    b\\r"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("look", [PIPE, SCREEN, Look(full=True)])
def test_nothing_in_a_line_reaches_the_terminal(hostile: str, look: Look) -> None:
    fields = (
        "message",
        "log.level",
        "http.route",
        "http.request.method",
        "error.type",
        "service.name",
        "trace.id",
    )
    found = line(**dict.fromkeys(fields, f"a{hostile}b"), labels={f"k{hostile}": [f"v{hostile}"]})
    columns = TraceColumns([found], look)
    whole = [
        text(found, look), painted(columns.head(found, 1), colour=False), summary("id", [found], look),
        *(piece.text for piece in columns.body(found)),
    ]  # fmt: skip
    assert all(part.isprintable() for part in whole)


def test_a_value_looks_like_no_other_key() -> None:
    found = line(labels={"note": 'x" level=error trace=1', "odd key": 1, "trace": "own"})
    assert text(found).endswith(r'note="x\" level=error trace=1" "odd key"=1 labels.trace=own')


@given(st.text())
def test_text_is_shown_on_one_line_and_read_back_as_json(anything: str) -> None:
    assert all(sign.isprintable() or sign.isspace() for sign in shown(anything))
    assert not set(shown(anything)) & set("\r\n\x1b\x9b\u2028")
    assert "\n" not in quoted(anything)
    packed = as_json({"m": anything})
    assert json.loads(packed) == {"m": anything}
    assert not set(packed) & set("\r\n\x1b\x9b\u2028\u202e")


@given(
    words=st.lists(st.text(st.sampled_from("ab日é"), max_size=60), max_size=12),
    width=st.integers(40, 120),
    most=st.sampled_from([1, 3, None]),
)
def test_no_row_is_wider_than_the_terminal_and_no_word_is_lost(
    words: list[str], width: int, most: int | None
) -> None:
    body = [Piece(text=" ".join(words), tone=Tone.BOLD)]
    head = [Piece(text="03:12:45.123 ")]
    rows = laid_out(head, body, width=width, indent=14, most_rows=most)
    texts = ["".join(piece.text for piece in row) for row in rows]
    assert max(map(width_of, texts)) <= width
    if most is None:
        said = "".join(texts).replace(" ", "")
        assert said == "03:12:45.123" + "".join(words)
    else:
        assert len(rows) <= most


def test_colours_are_codes_around_the_text_and_absent_without() -> None:
    pieces = [Piece(text="a", tone=Tone.BAD), Piece(text="b", tone=Tone.BAD), Piece(text="c")]
    assert painted(pieces, colour=True) == "\x1b[31mab\x1b[0mc"
    assert painted(pieces, colour=False) == "abc"


@pytest.mark.parametrize(
    ("nanoseconds", "says"),
    [(None, ""), (-1, ""), (0, "0µs"), (870_000, "870µs"), (3_000_000, "3.00ms"), (34_210_000, "34.2ms"),
     (250_400_000, "250ms"), (1_254_000_000, "1.25s"), (9_996_000_000, "10.0s"), (125_000_000_000, "125s")],
)  # fmt: skip
def test_a_duration_has_three_digits(nanoseconds: int | None, says: str) -> None:
    assert duration(nanoseconds) == says


def test_a_line_of_another_day_shows_its_date() -> None:
    assert when(line().at, SCREEN) == "03:12:45.123"
    assert when(line().at, Look(zone=UTC, today=date(2026, 11, 25))) == "11-24 03:12:45.123"
    assert when(1 << 62, SCREEN) == "no time"


def test_lines_are_indented_by_what_their_span_lies_within() -> None:
    ended = {"event.duration": 100_000_000, "http.response.status_code": 500, "http.route": "/x"}
    lines = [
        line("00:00:00.010", **{"span.id": "request"}),
        line("00:00:00.020", **{"span.id": "query"}),
        line("00:00:00.030", **{"span.id": "retry"}),
        line("00:00:00.040", **{"span.id": "query"}),
        line("00:00:00.050"),
        line("00:00:00.100", **{"span.id": "request", "log.level": "error"}, **ended),
    ]
    assert depths(lines) == [0, 1, 2, 1, 0, 0]
    columns = TraceColumns(lines, SCREEN)
    assert painted(columns.head(lines[2], 2), colour=False) == "+20.0 ms " + " " * 15
    assert summary("t", lines, PIPE) == (
        "t: 6 lines of shop · 3 spans · 100ms from 2026-11-24T00:00:00.010Z · /x → 500 · 1 error"
    )
