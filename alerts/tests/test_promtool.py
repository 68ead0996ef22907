"""The unit tests of every alert, run by promtool, and that none lacks one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskscope.testing.engines.prometheus import promtool
from taskscope_alerts import WATCHDOG, alerts_by_name
from taskscope_taskapi.catalogue import CATALOGUE

FOLDER = Path(__file__).parent / "promtool"
FILES = sorted(FOLDER.glob("*.yml"))
RULES = Path(__file__).parents[1] / "generated" / "taskapi.rules.yml"

Scenario = dict[str, Any]


def scenarios() -> Iterator[Scenario]:
    for path in FILES:
        yield from yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]


def phases(alert: str, scenario: Scenario) -> str:
    """Q for each asserted moment without an alert and F for each with this one, in order, repeats folded."""
    text = ""
    for check in scenario.get("promql_expr_test", ()):
        labels = [sample["labels"] for sample in check["exp_samples"]]
        phase = "F" if any(f'"{alert}"' in label for label in labels) else "" if labels else "Q"
        text += phase if not text.endswith(phase) else ""
    return text


def untested(alerts: set[str], found: list[Scenario]) -> set[str]:
    """The alerts that no scenario shows quiet first, then firing, then resolved."""
    return {
        alert
        for alert in alerts
        if not any(s["name"].startswith(f"{alert}:") and phases(alert, s) == "QFQ" for s in found)
    }


@pytest.mark.engine
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_promtool_is_told_to_expect_comes_true(path: Path) -> None:
    done = promtool("test", "rules", path.name, cwd=path.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_lacks_a_unit_test() -> None:
    assert untested(set(alerts_by_name(CATALOGUE)) - {WATCHDOG}, list(scenarios())) == set()


def test_the_watchdog_is_tested_to_fire_from_the_start() -> None:
    assert [s for s in scenarios() if s["name"].startswith(f"{WATCHDOG}:")]


def test_an_alert_whose_test_never_shows_it_quiet_is_named() -> None:
    hasty = {
        "name": "ADown: at once",
        "promql_expr_test": [{"exp_samples": [{"labels": '{alertname="ADown"}'}]}],
    }
    assert untested({"ADown"}, [hasty]) == {"ADown"}


PLANTS: dict[str, tuple[str, str, str, str]] = {
    # fault: file and scenario that must catch it, what stands in the rules, what is put there
    "a threshold too high": ("saturation", "DatabasePoolSaturated: 19", "> 0.9\n", "> 0.99\n"),
    "a hold too short": ("saturation", "DatabasePoolSaturated: 19", "for: 5m", "for: 1m"),
    "the wrong label value": (
        "saturation",
        "DatabasePoolSaturated: 19",
        'state="used"',
        'state="idle"',
    ),
    "no guard against few events": (
        "burn_minutes",
        "AvailabilityBudgetFastBurn: a burst",
        "[1h]) > 12",
        "[1h]) > 0",
    ),
    "no guard for a fresh start": (
        "burn_minutes",
        "LatencyBudgetFastBurn: a start",
        "offset 5m >= 0",
        ">= 0",
    ),
    "a lag that is let pass": ("saturation", "EventLoopBlocked: two", "> 0.25\n", "> 0.5\n"),
    "too many who may give up": (
        "saturation",
        "DatabasePoolTimeouts: one",
        "> 0.1\n",
        "> 0.3\n",
    ),
    "errors that are lost and told as a ticket": (
        "logs",
        "LogLinesDropped: errors",
        'log_level=~"error|critical"',
        'log_level=~"critical"',
    ),
    "a spool that may be nearly full": ("logs", "LogSpoolSaturated: more", "> 0.8\n", "> 0.95\n"),
    "a series that is new and not seen": (
        "telemetry",
        "LabelOverflow: a label",
        "present_over_time",
        "absent_over_time",
    ),
    "a series that is new after a pause": (
        "telemetry",
        "LabelOverflow: what overflowed",
        "[1h] offset",
        "[1m] offset",
    ),
    "a time-out that counts as good": (
        "recording",
        "steady traffic",
        "server_error|timeout",
        "server_error",
    ),
}


@pytest.mark.engine
@pytest.mark.parametrize("fault", PLANTS)
def test_a_fault_planted_in_the_rules_fails_the_unit_tests(fault: str, tmp_path: Path) -> None:
    file, scenario, good, planted = PLANTS[fault]
    rules = RULES.read_text(encoding="utf-8")
    assert good in rules
    test = yaml.safe_load((FOLDER / f"{file}.yml").read_text(encoding="utf-8"))
    catching = [one for one in test["tests"] if one["name"].startswith(scenario)]
    (tmp_path / "planted.yml").write_text(rules.replace(good, planted), encoding="utf-8")
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump(test | {"rule_files": ["planted.yml"], "tests": catching}), encoding="utf-8"
    )
    assert promtool("test", "rules", "test.yml", cwd=tmp_path).returncode == 1
