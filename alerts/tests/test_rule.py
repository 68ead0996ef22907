"""Rules are checked at birth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from taskscope.errors import TaskscopeError
from taskscope_alerts import Alert, Group, Recording, RuleError, Severity, alerts_by_name
from taskscope_taskapi.catalogue import CATALOGUE

DOWN = alerts_by_name(CATALOGUE)["TargetDown"][0]
RECORDING = Recording(name="service:x:rate5m", expr="vector(1)")

BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "a name that is no subject": (lambda: replace(DOWN, name="target_down"), "CamelCase"),
    "a name without a state": (lambda: replace(DOWN, name="TargetProblem"), "states"),
    "a severity missing": (lambda: replace(DOWN, severity=None), "PAGE or TICKET"),
    "a watchdog that pages": (
        lambda: replace(DOWN, name="Watchdog", severity=Severity.PAGE),
        "none for Watchdog",
    ),
    "a severity as a label": (
        lambda: replace(DOWN, labels=(*DOWN.labels, ("severity", "critical"))),
        "set by its fields",
    ),
    "no service": (lambda: replace(DOWN, labels=(("subsystem", "self"),)), "give service"),
    "a duration in words": (lambda: replace(DOWN, hold="two minutes"), "write it as 5m"),
    "an empty expr": (lambda: replace(DOWN, expr=" "), "write the PromQL"),
    "a summary of two lines": (lambda: replace(DOWN, summary="a\nb"), "one line"),
    "a description that is no sentence": (
        lambda: replace(DOWN, description="down"),
        "write it out",
    ),
    "a number without a unit": (
        lambda: replace(DOWN, description="It is {{ $value }}."),
        "without its unit",
    ),
    "a recording with two parts": (lambda: replace(RECORDING, name="service:x"), "level:metric"),
    "an empty group": (lambda: Group(name="g", interval_s=15, rules=()), "0 rules"),
    "a series recorded twice": (
        lambda: Group(name="g", interval_s=15, rules=(RECORDING, RECORDING)),
        "recorded twice",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_rule_is_refused_with_the_remedy(fault: str) -> None:
    make, words = BROKEN[fault]
    with pytest.raises(RuleError, match=words):
        make()


@pytest.mark.parametrize(
    "text",
    ["It is {{ $value | humanizePercentage }}.", 'About {{ $value | printf "%.0f" }} lines.'],
)
def test_a_number_with_its_unit_is_taken(text: str) -> None:
    assert replace(DOWN, description=text).description == text


def test_the_error_is_one_of_the_library_s() -> None:
    assert issubclass(RuleError, TaskscopeError)


def test_severities_are_page_and_ticket_and_nothing_else() -> None:
    assert {severity.value for severity in Severity} == {"page", "ticket"}


def test_an_alert_cannot_be_made_without_its_runbook() -> None:
    fields = {name: getattr(DOWN, name) for name in Alert.__slots__ if name != "runbook"}
    with pytest.raises(TypeError, match="runbook"):
        Alert(**fields)
