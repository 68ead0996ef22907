"""The verdict on top of the page, and how near each measure is to its limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskscope_ui.headroom import Level, Reading, level_of, verdict
from taskscope_ui.measures import ERRORS, LATENCY, MEASURES, POOL, TRAFFIC, Measure


def reading(measure: Measure, value: float | None, limit: float | None) -> Reading:
    return Reading(measure=measure, value=value, limit=limit)


def quiet(*, errors: float = 0.0, traffic: float = 20.0) -> list[Reading]:
    return [
        reading(TRAFFIC, traffic, 1000.0),
        reading(LATENCY, 0.03, 0.3),
        reading(ERRORS, errors, 0.001),
        reading(POOL, 0.15, 1.0),
    ]


def test_the_verdict_says_the_load_and_the_nearest_limit() -> None:
    assert (
        verdict(quiet()).sentence
        == "The service is at 2 % of what it can carry; nearest limit: database pool, 15 %."
    )


def test_a_load_that_is_itself_the_nearest_limit_is_said_once() -> None:
    assert (
        verdict(quiet(traffic=430)).sentence
        == "The service is at 43 % of what it can carry; no other limit is nearer."
    )


def test_a_quiet_service_has_room() -> None:
    assert verdict(quiet()).level is Level.ROOM


def test_a_crossed_limit_is_named_with_its_value_and_its_limit() -> None:
    assert verdict(quiet(errors=0.0035)).sentence == (
        "The service is at 2 % of what it can carry; "
        "over its limit: failed requests (0.35 %, limit 0.1 %)."
    )


def test_too_much_traffic_is_said_as_such() -> None:
    assert verdict(quiet(traffic=1500)).sentence == (
        "The service carries 150 % of what it was sized for; "
        "over its limit: request rate (1,500/s, limit 1,000/s)."
    )


def test_every_limit_that_is_crossed_is_named() -> None:
    said = verdict(quiet(traffic=1500, errors=0.5)).sentence
    assert "failed requests (50 %, limit 0.1 %) and request rate (1,500/s" in said


def test_seven_tenths_of_a_limit_are_near() -> None:
    assert [level_of(used) for used in (0.69, 0.7, 0.99, 1.0)] == [
        Level.ROOM,
        Level.NEAR,
        Level.NEAR,
        Level.OVER,
    ]


def test_without_a_measurement_nothing_is_claimed() -> None:
    blind = verdict([reading(measure, None, 1.0) for measure in MEASURES])
    assert (blind.level, blind.sentence) == (Level.UNKNOWN, "Nothing is measured yet.")


def test_a_measure_without_a_promise_says_so() -> None:
    assert reading(LATENCY, 0.2, None).against == "no limit was promised"


def test_no_running_instance_leaves_the_load_without_a_share() -> None:
    assert reading(TRAFFIC, 3.0, 0.0).used is None


def test_a_trace_of_load_is_not_called_nothing() -> None:
    assert reading(TRAFFIC, 1.0, 1000.0).against == "less than 1 % of the limit, 1,000/s"


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9)), min_size=4, max_size=4))
def test_the_level_is_that_of_the_most_used_limit(values: list[float | None]) -> None:
    readings = [reading(m, v, 1.0) for m, v in zip(MEASURES, values, strict=True)]
    used = [r.used for r in readings if r.used is not None]
    assert verdict(readings).level is level_of(max(used, default=None))
