"""Error budgets are exact, and an objective that makes no sense does not come into being."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue import Match, Objective, Window
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, LOG_LINES, REQUEST_DURATION
from taskscope.errors import ObjectiveError


def objective(**changes: Any) -> Objective:
    given: dict[str, Any] = {
        "name": "availability",
        "title": "Requests without a server error",
        "metric": REQUEST_DURATION,
        "target": Decimal("0.999"),
        "window": Window(days=30),
        "bad": Match(label="outcome", values=("server_error",)),
    }
    return Objective(**(given | changes))


def test_the_budget_is_exact() -> None:
    assert objective().budget == Decimal("0.001")
    assert str(objective().budget) == "0.001"


def test_the_budget_of_a_month_at_three_nines_is_43_minutes() -> None:
    assert objective().allowed_seconds() == Decimal(2592)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Availability!"}, "lower-case slug"),
        ({"target": Decimal("99.9")}, "write 99.9 % as 0.999"),
        ({"target": Decimal(1)}, "not between 0 and 1"),
        ({"bad": None}, "give either"),
        ({"threshold": Decimal("0.3")}, "give either"),
        ({"metric": ACTIVE_REQUESTS}, "counts no events"),
        ({"bad": Match(label="colour", values=("red",))}, "has no label colour"),
        (
            {"bad": Match(label="outcome", values=("server_eror",))},
            "declares no outcome server_eror",
        ),
        ({"bad": Match(label="outcome", values=())}, "declares no outcome"),
        ({"bad": None, "threshold": Decimal(-1)}, "positive bound"),
        ({"metric": LOG_LINES, "bad": None, "threshold": Decimal(1)}, "needs a histogram"),
    ],
)
def test_a_wrong_objective_is_told_where_what_and_the_remedy(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ObjectiveError, match=sentence):
        objective(**changes)


@pytest.mark.parametrize("days", [0, -1, 91])
def test_a_window_is_1_to_90_days(days: int) -> None:
    with pytest.raises(ObjectiveError, match="take 1 to 90"):
        Window(days=days)


_targets = st.decimals(min_value="0.001", max_value="0.99999", places=5)


@given(_targets, _targets)
def test_a_higher_target_never_leaves_more_budget(one: Decimal, other: Decimal) -> None:
    low, high = sorted((one, other))
    assert objective(target=high).allowed_seconds() <= objective(target=low).allowed_seconds()
