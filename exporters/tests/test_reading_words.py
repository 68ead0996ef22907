"""What a person types: read as meant, refused in one sentence, and never more than a value in the request."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope_exporters.logs.reading.conditions import (
    Between,
    Condition,
    Is,
    Like,
    Not,
    Phrase,
    Present,
    Query,
    QueryError,
    Says,
)
from taskscope_exporters.logs.reading.dsl import query_of, stamp
from taskscope_exporters.logs.reading.entry import entry, microseconds
from taskscope_exporters.logs.reading.follow import Known
from taskscope_exporters.logs.reading.matching import matches, needles
from taskscope_exporters.logs.reading.reader import Where
from taskscope_exporters.logs.reading.times import moment, spoken
from taskscope_exporters.logs.reading.words import at_least, of_status, of_trace, parse

STATUS = "http.response.status_code"
NOW = datetime(2026, 11, 24, 3, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("timeout", Says(words="timeout")),
        ("time*", Says(words="time", begins=True)),
        ('"pool exhausted"', Says(words="pool exhausted")),
        ("-timeout", Not(condition=Says(words="timeout"))),
        ("route:/tasks", Is(field="http.route", value="/tasks")),
        ("route:/tasks/*", Like(field="http.route", pattern="/tasks/*")),
        ('route:"/a*"', Is(field="http.route", value="/a*")),
        ("http.route:/tasks", Is(field="http.route", value="/tasks")),
        ("-route:/livez", Not(condition=Is(field="http.route", value="/livez"))),
        ("status:5xx", Between(field=STATUS, low=500, high=599)),
        ("status:>=500", Between(field=STATUS, low=500)),
        ("status:400..499", Between(field=STATUS, low=400, high=499)),
        ("duration:>250ms", Between(field="event.duration", low=250_000_001)),
        ("duration:<1.5s", Between(field="event.duration", high=1_499_999_999)),
        ("exception:*", Present(field="error.type")),
        ("level:WARN", Is(field="log.level", value="warning")),
        ("event:created", Phrase(field="message", words="created")),
        ("task_id:7", Is(field="labels.task_id", value="7")),
        ("outcome:failure", Is(field="event.outcome", value="failure")),
        ("outcome:timeout", Is(field="labels.outcome", value="timeout")),
        ("http://host/a", Says(words="http://host/a")),
    ],
)
def test_a_term_is_read(text: str, condition: Condition) -> None:
    assert parse(text) == (condition,)


def test_terms_stand_side_by_side() -> None:
    assert parse('  a  "b c" d:e ') == (
        Says(words="a"),
        Says(words="b c"),
        Is(field="labels.d", value="e"),
    )
    assert parse("") == ()


@pytest.mark.parametrize(
    "text",
    ['"open', 'a"b', "*", "a*b", "status:many", "status:>", "duration:fast", "@timestamp:now", 'x:""',
     "x:a*b", "y" * 501, "a " * 51, "status:" + "9" * 400],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(QueryError, match=";"):
        parse(text)


def test_options_are_refused_with_what_they_take() -> None:
    with pytest.raises(QueryError, match="take one of debug, info, warning, error, critical"):
        at_least("loud")
    with pytest.raises(QueryError, match="write it as 500, 5xx"):
        of_status("bad")
    for wrong in ("", "a\nb", "x" * 300):
        with pytest.raises(QueryError, match="is no id"):
            of_trace(wrong)
    for name in ("*", "a,b", "-x", "A", "../x", "", "x y"):
        with pytest.raises(QueryError, match="is no service's name"):
            Where(spool=Path(), service=name)


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_typed_the_request_keeps_its_shape(one: str, two: str) -> None:
    """A value stands where a value stood: nothing typed adds a clause, a field or a parameter."""

    def made(text: str) -> str:
        conditions = (
            Says(words=text), Says(words=text, begins=True), Is(field="http.route", value=text),
            Like(field="http.route", pattern=f"{text}*"), Phrase(field="message", words=text),
        )  # fmt: skip
        return _shape(query_of(Query(conditions=conditions, since=0)))

    assert made(one) == made(two)
    assert "query_string" not in made(one)
    json.dumps(query_of(Query(conditions=(Is(field="a", value=one),), since=0)))


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_shape(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_shape, value)) + "]"
    return type(value).__name__


@given(st.text(st.sampled_from('ab "*:-\\/.é<>=x5'), max_size=30))
def test_whatever_is_typed_is_read_or_refused_and_can_be_matched(text: str) -> None:
    try:
        conditions = parse(text)
    except QueryError:
        return
    query = Query(conditions=conditions, since=0)
    line = entry(
        "id", {"@timestamp": "2026-11-24T00:00:00Z", "message": text, "labels": {"a": text}}
    )
    matches(query, line)
    query_of(query)
    needles(query)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10m", "2026-11-24T02:20:00+00:00"),
        ("1h30m", "2026-11-24T01:00:00+00:00"),
        ("2d", "2026-11-22T02:30:00+00:00"),
        ("03:12", "2026-11-24T02:12:00+00:00"),
        ("23:00", "2026-11-23T22:00:00+00:00"),
        ("2026-11-24T03:12", "2026-11-24T02:12:00+00:00"),
        ("2026-11-24", "2026-11-23T23:00:00+00:00"),
        ("2026-11-24T03:12Z", "2026-11-24T03:12:00+00:00"),
        ("2026-11-24T03:12:05.25+02:00", "2026-11-24T01:12:05.250000+00:00"),
    ],
)
def test_a_time_is_read_in_its_zone(text: str, found: str) -> None:
    assert moment(text, now=NOW, zone=NOW.tzinfo) == microseconds(found)


@pytest.mark.parametrize(
    "text", ["", "soon", "10", "25:00", "10y", "2026-13-01", "1h x", "9" * 400 + "h", "999999999w"]
)
def test_what_is_no_time_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(QueryError, match=";"):
        moment(text, now=NOW, zone=UTC)


def test_an_age_is_spoken_with_one_unit() -> None:
    ages = [spoken(age) for age in (-3, 0.4, 90, 150, 7200, 86_400 * 3)]
    assert ages == ["0 s", "0 s", "90 s", "2 min", "2 h", "3 days"]


def test_a_time_that_no_calendar_holds_is_its_end() -> None:
    assert stamp(1 << 80).startswith("9999-01-01")
    assert stamp(-(1 << 80)).startswith("0001-01-01") or stamp(-(1 << 80)).startswith("1-01-01")


def test_what_is_forgotten_is_not_asked_for_again() -> None:
    known = Known(0, most=3)
    known.add([entry(f"{n}", {}, at=n * 1_000_000) for n in range(5)])
    assert list(known.ids) == ["2", "3", "4"]
    # The second forgotten line was logged at 1,000,000; the server compares by the millisecond.
    assert known.floor == 1_001_000
    known.add([entry("old", {}, at=5)])
    assert "old" not in known
    known.forget_before(4_000_000)
    assert (list(known.ids), known.floor) == (["4"], 4_000_000)
