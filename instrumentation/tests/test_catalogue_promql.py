"""Objectives become PromQL that a real grammar accepts and that holds exact numbers."""

from __future__ import annotations

import re
from decimal import Decimal

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue import Catalogue, Match, Objective, Window, promql
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.errors import ObjectiveError

AVAILABILITY = Objective(
    name="availability",
    title="Requests without a server error",
    metric=REQUEST_DURATION,
    target=Decimal("0.999"),
    window=Window(days=30),
    bad=Match(label="outcome", values=("server_error", "timeout")),
)
LATENCY = Objective(
    name="latency",
    title="Requests under 300 ms",
    metric=REQUEST_DURATION,
    target=Decimal("0.99"),
    window=Window(days=30),
    threshold=Decimal("0.30"),
)
SHOP = Catalogue(service="shop", objectives=(AVAILABILITY, LATENCY))


def test_availability_counts_its_bad_outcomes_and_answers_0_without_any() -> None:
    assert promql.bad_events(SHOP, AVAILABILITY, "5m") == (
        '(sum(rate(http_server_request_duration_seconds_count{job="shop", outcome=~"server_error|timeout"}[5m]))'
        ' or 0 * sum(rate(http_server_request_duration_seconds_count{job="shop"}[5m])))'
    )


def test_latency_counts_what_is_above_its_exact_bound() -> None:
    assert promql.bad_events(SHOP, LATENCY, "5m") == (
        'clamp_min(sum(rate(http_server_request_duration_seconds_count{job="shop"}[5m]))'
        ' - sum(rate(http_server_request_duration_seconds_bucket{job="shop", le="0.3"}[5m])), 0)'
    )


def test_a_whole_bound_matches_both_ways_of_writing_it() -> None:
    whole = Objective(
        name="slow",
        title="x",
        metric=REQUEST_DURATION,
        target=Decimal("0.9"),
        window=Window(days=7),
        threshold=Decimal(1),
    )
    assert 'le=~"1(\\\\.0)?"' in promql.bad_events(SHOP, whole, "5m")


@pytest.mark.parametrize("objective", [AVAILABILITY, LATENCY], ids=lambda o: o.name)
def test_every_expression_parses(objective: Objective) -> None:
    for text in (promql.burn_ratio(SHOP, objective, "1h"), promql.sli_ratio(SHOP, objective, "1h")):
        promql_parser.parse(text)


def test_a_window_that_is_not_recorded_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="no series is recorded over 7m; take one of 5m"):
        promql.sli_ratio(SHOP, LATENCY, "7m")


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.30", "0.3"), ("10", "10"), ("1E+2", "100"), ("0.0010", "0.001"), ("-0", "0")],
)
def test_numbers_are_written_without_dust(value: str, text: str) -> None:
    assert promql.number(Decimal(value)) == text


@given(st.lists(st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\x00")), min_size=1))
def test_a_choice_of_values_matches_each_and_nothing_else(values: list[str]) -> None:
    (matcher,) = promql_parser.parse(f'up{{x=~"{promql.any_of(values)}"}}').matchers.matchers
    assert all(re.fullmatch(matcher.value, value) for value in values)
    assert bool(re.fullmatch(matcher.value, "a1")) == ("a1" in values)


def test_a_value_that_reads_like_a_pattern_is_taken_literally() -> None:
    assert promql.any_of(("c++", "4.x")) == r"c\\+\\+|4\\.x"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_any_text_stays_inside_its_quotes(text: str) -> None:
    parsed = promql_parser.parse(f'up{{job="{promql.escape(text)}"}}')
    assert [m.value for m in parsed.matchers.matchers] == [text]
