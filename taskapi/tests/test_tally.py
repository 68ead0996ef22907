"""The count of a load, and the line that tells it."""

from __future__ import annotations

import json

from taskscope_taskapi.tally import Tally


def test_answers_are_counted_by_status_by_route_and_by_both() -> None:
    tally = Tally()
    for status in (200, 200, 500):
        tally.sent += 1
        tally.answered("GET", "/tasks", status)
    summary = tally.summary(seconds=1.5)
    assert summary.by_status == {"200": 2, "500": 1}
    assert summary.by_route == {"GET /tasks": 3}
    assert summary.answers == {"GET /tasks 200": 2, "GET /tasks 500": 1}


def test_what_met_no_answer_is_counted_apart() -> None:
    tally = Tally()
    tally.sent += 1
    tally.unanswered()
    summary = tally.summary(seconds=1)
    assert (summary.sent, summary.answered, summary.unanswered) == (1, 0, 1)


def test_the_summary_is_one_line_of_json() -> None:
    line = Tally().summary(seconds=0.12345).line()
    assert "\n" not in line
    assert json.loads(line)["seconds"] == 0.123
