"""The arithmetic of burn rates."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given

from taskscope.catalogue import Objective, Window
from taskscope_alerts.severity import Severity
from taskscope_alerts.tier import SECONDS, Tier, tiers
from taskscope_taskapi.catalogue import AVAILABILITY, LATENCY

from .conftest import TARGETS, objectives


def all_tiers(objective: Objective) -> tuple[Tier, ...]:
    return tiers(objective, Severity.PAGE) + tiers(objective, Severity.TICKET)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (AVAILABILITY, ["0.0144", "0.006", "0.003", "0.001"]),
        (LATENCY, ["0.144", "0.06", "0.03", "0.01"]),
    ],
    ids=["availability", "latency"],
)
def test_thirty_days_burn_at_the_factors_of_the_workbook(
    objective: Objective, expected: list[str]
) -> None:
    assert [tier.factor for tier in all_tiers(objective)] == [Decimal("14.4"), 6, 3, 1]
    assert [tier.threshold for tier in all_tiers(objective)] == [Decimal(text) for text in expected]


def test_a_week_burns_at_factors_scaled_to_it_and_never_below_the_sustainable_rate() -> None:
    week = replace(AVAILABILITY, window=Window(days=7))
    assert [tier.factor for tier in all_tiers(week)] == [Decimal("3.36"), 2, 1, 1]


def test_a_window_longer_than_the_objective_is_left_out() -> None:
    day = replace(AVAILABILITY, window=Window(days=1))
    assert [tier.long for tier in all_tiers(day)] == ["1h", "6h", "1d"]


def test_errors_page_from_the_first_minutes_of_a_stack_and_slowness_after_five() -> None:
    assert tiers(AVAILABILITY, Severity.PAGE)[0].settled == ""
    assert tiers(LATENCY, Severity.PAGE)[0].settled == "5m"


@given(objective=objectives())
def test_every_threshold_can_be_reached_and_is_above_what_is_sustainable(
    objective: Objective,
) -> None:
    for tier in all_tiers(objective):
        assert objective.budget <= tier.threshold < 1


@given(objective=objectives(), one=TARGETS, other=TARGETS)
def test_a_higher_target_never_raises_a_threshold(
    objective: Objective, one: Decimal, other: Decimal
) -> None:
    low, high = sorted((one, other))
    lenient, strict = (all_tiers(replace(objective, target=target)) for target in (low, high))
    for loose, tight in zip(lenient, strict, strict=True):
        assert tight.threshold <= loose.threshold


@given(objective=objectives())
def test_the_short_window_is_shorter_and_both_hold_four_scrapes(objective: Objective) -> None:
    for tier in all_tiers(objective):
        assert 4 * 15 <= SECONDS[tier.short] < SECONDS[tier.long] <= objective.window.seconds
