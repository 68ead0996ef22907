"""Answers of Prometheus as values and frames."""

from __future__ import annotations

import math

from taskscope_ui.series import by_label, frame, latest, newest, step_for
from taskscope_ui.sources.prometheus import Line, Point, Sample


def sample(value: float, **labels: str) -> Sample:
    return Sample(labels, Point(100.0, value))


def line(*points: tuple[float, float]) -> Line:
    return Line({}, tuple(Point(*point) for point in points))


def test_the_latest_value_is_the_one_that_is_a_number() -> None:
    assert latest([sample(math.nan), sample(2.5)]) == 2.5


def test_an_empty_answer_has_no_value() -> None:
    assert latest([]) is None


def test_infinity_is_no_value() -> None:
    assert latest([sample(math.inf)]) is None


def test_values_are_found_by_their_label() -> None:
    found = by_label([sample(0.5, slo="latency"), sample(math.nan, slo="x"), sample(1.0)], "slo")
    assert found == {"latency": 0.5}


def test_the_newest_point_of_all_lines_is_found() -> None:
    assert newest([line((10, 1), (20, 1)), line((15, 1)), line()]) == 20


def test_no_lines_have_no_newest_point() -> None:
    assert newest([]) is None


def test_a_day_takes_few_points_and_an_hour_no_more_than_there_are() -> None:
    assert (step_for(86_400), step_for(3600)) == (360.0, 15.0)


def test_an_outage_breaks_the_line() -> None:
    table = frame({"traffic": [line((0, 1), (15, 2), (60, 3), (75, 4))]}, step_s=15)
    assert table["value"].isna().tolist() == [False, False, True, False, False]


def test_a_point_that_is_no_number_leaves_a_gap() -> None:
    table = frame({"errors": [line((0, 1), (15, math.nan), (30, 3))]}, step_s=15)
    assert table["value"].isna().tolist() == [False, True, False]


def test_nothing_measured_makes_an_empty_frame_with_its_columns() -> None:
    table = frame({"traffic": []}, step_s=15)
    assert (list(table.columns), len(table)) == (["measure", "time", "value"], 0)
