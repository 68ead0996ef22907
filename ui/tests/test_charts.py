"""The charts hold what they were given: shares, limits that can be seen, and the whole of the chosen time."""

from __future__ import annotations

from typing import Any

import pandas as pd

from taskscope_ui.charts import against_limits, one_measure, shares
from taskscope_ui.measures import LATENCY, MEASURES
from taskscope_ui.series import frame
from taskscope_ui.sources.prometheus import Line, Point


def table(**values: float) -> pd.DataFrame:
    points = {key: [Line({}, (Point(0, v), Point(15, v)))] for key, v in values.items()}
    return frame(points, step_s=15)


def drawn(chart: Any) -> dict[str, Any]:
    found: dict[str, Any] = chart.to_dict()
    return found


def marks(chart: Any) -> list[str]:
    return [layer["mark"]["type"] for layer in drawn(chart)["layer"]]


def test_a_value_becomes_the_share_of_its_limit() -> None:
    found = shares(table(latency=0.06), {"latency": 0.3})
    assert found["share"].round(6).tolist() == [0.2, 0.2]


def test_a_measure_without_a_limit_has_no_share() -> None:
    assert shares(table(latency=0.06, traffic=3.0), {"traffic": 10.0})["measure"].unique() == [
        "traffic"
    ]


def test_every_measure_keeps_its_colour_whatever_is_measured() -> None:
    chart = drawn(against_limits(shares(table(latency=0.1), {"latency": 0.3}), start=0, end=60))
    scale = chart["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == [measure.title for measure in MEASURES]


def test_the_time_axis_spans_what_was_chosen_even_where_little_is_known() -> None:
    chart = drawn(one_measure(table(latency=0.1), LATENCY, 0.3, start=0, end=3600))
    first, last = chart["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert (first["year"], first["hours"], last["hours"], last["utc"]) == (1970, 0, 1, True)


def test_a_limit_that_is_near_is_drawn() -> None:
    assert "rule" in marks(one_measure(table(latency=0.2), LATENCY, 0.3, start=0, end=60))


def test_a_limit_that_is_far_does_not_press_the_line_to_the_floor() -> None:
    assert "rule" not in marks(one_measure(table(latency=0.01), LATENCY, 0.3, start=0, end=60))


def test_nothing_measured_still_draws() -> None:
    empty = frame({}, step_s=15)
    assert marks(against_limits(shares(empty, {}), start=0, end=60)) == ["line", "rule", "text"]
    assert marks(one_measure(empty, LATENCY, None, start=0, end=60)) == ["area", "line"]
