"""All rules of a service: each recorded name once, each query clean, each alert fit to act on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskscope.catalogue import Catalogue, Objective
from taskscope.catalogue.builtin import LEVELS, LOG_AGE
from taskscope.catalogue.promql import RECORDED
from taskscope.testing.promql import lint
from taskscope_alerts import WATCHDOG, RuleError, Severity, alerts_by_name, groups
from taskscope_taskapi.catalogue import AVAILABILITY, CATALOGUE

from .conftest import BARE


def test_every_recorded_name_of_the_catalogue_is_recorded_and_no_other(
    catalogue: Catalogue,
) -> None:
    recorded = [rule.name for group in groups(catalogue) for rule in group.recordings]
    expected = {
        name for name, labels in RECORDED.items() if catalogue.objectives or "slo" not in labels
    }
    assert set(recorded) == expected


def test_every_recording_bears_exactly_the_labels_it_promises(catalogue: Catalogue) -> None:
    for group in groups(catalogue):
        for rule in group.recordings:
            assert tuple(name for name, _ in rule.labels) == RECORDED[rule.name]


def test_every_objective_is_recorded_and_judged(catalogue: Catalogue) -> None:
    for objective in catalogue.objectives:
        series = [
            rule.name
            for group in groups(catalogue)
            for rule in group.recordings
            if ("slo", objective.name) in rule.labels
        ]
        assert sorted(series) == sorted(n for n, labels in RECORDED.items() if "slo" in labels)
        severities = [
            alert.severity
            for group in groups(catalogue)
            for alert in group.alerts
            if ("slo", objective.name) in alert.labels
        ]
        assert severities == [Severity.PAGE, Severity.TICKET]


def test_every_query_names_only_what_the_catalogue_knows(catalogue: Catalogue) -> None:
    found = [
        finding
        for group in groups(catalogue)
        for rule in group.rules
        for finding in lint(catalogue, rule.name, rule.expr)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("good", "planted", "words"),
    [
        (
            "taskscope_logs_oldest_line_age_seconds",
            "taskscope_logs_oldest_age_seconds",
            "did you mean",
        ),
        ('job="taskapi-shipper"', 'jobs="taskapi-shipper"', "no label jobs"),
    ],
    ids=["a misspelt metric", "a misspelt label"],
)
def test_a_planted_misspelling_is_caught(good: str, planted: str, words: str) -> None:
    alert = alerts_by_name(CATALOGUE)["LogDeliveryDelayed"][0]
    broken = replace(alert, expr=alert.expr.replace(good, planted))
    assert broken.expr != alert.expr
    assert any(words in finding for finding in lint(CATALOGUE, alert.name, broken.expr))


def test_a_planted_rule_without_a_job_is_caught() -> None:
    assert lint(CATALOGUE, "planted", f"max({LOG_AGE.series}) > 60")


def test_only_the_watchdog_has_no_severity(catalogue: Catalogue) -> None:
    silent = [
        name
        for name, alerts in alerts_by_name(catalogue).items()
        if any(alert.severity is None for alert in alerts)
    ]
    assert silent == [WATCHDOG]


def test_pages_are_for_harm_to_users_or_blindness_and_everything_else_waits_for_the_day() -> None:
    pages = {
        name
        for name, alerts in alerts_by_name(CATALOGUE).items()
        if any(alert.severity is Severity.PAGE for alert in alerts)
    }
    assert pages == {
        "AllTargetsDown",
        "AuditLinesDropped",
        "AvailabilityBudgetFastBurn",
        "LatencyBudgetFastBurn",
        "LogLinesDropped",
        "MetricsAbsent",
    }


def test_a_service_without_objectives_is_still_watched() -> None:
    assert {"AllTargetsDown", "TargetDown", WATCHDOG} <= alerts_by_name(BARE).keys()


def test_two_objectives_whose_alerts_would_share_a_name_are_refused() -> None:
    def named(name: str, title: str) -> Objective:
        return replace(AVAILABILITY, name=name, title=title)

    twins = replace(CATALOGUE, objectives=(named("a-1", "One"), named("a1", "Other")))
    with pytest.raises(RuleError, match="rename an objective"):
        alerts_by_name(twins)


def test_lines_of_each_level_that_are_lost_are_told_by_one_rule_each() -> None:
    page, other, _ = alerts_by_name(CATALOGUE)["LogLinesDropped"]
    assert (page.severity, other.severity) == (Severity.PAGE, Severity.TICKET)
    told = [
        level
        for rule in (page, other)
        for level in LEVELS
        if f'"{level}' in rule.expr or f"|{level}" in rule.expr
    ]
    assert sorted(told) == sorted(LEVELS)
