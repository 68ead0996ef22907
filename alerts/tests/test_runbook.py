"""One runbook an alert, complete, and every command in it at least well formed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from taskscope.catalogue import Catalogue
from taskscope.testing.promql import lint
from taskscope_alerts import alerts_by_name
from taskscope_alerts.advice import addresses
from taskscope_alerts.render import runbooks
from taskscope_alerts.rule import STATES
from taskscope_alerts.runbook import Step
from taskscope_taskapi.catalogue import CATALOGUE

FOLDER = Path(__file__).parents[1] / "runbooks"
SECTIONS = (
    "What it means",
    "How bad it is",
    "First five minutes",
    "Usual causes, likeliest first",
    "Stop the harm",
    "Silence it while you work",
    "When it resolves",
    "Addresses and logins",
    "The rule",
)


def without_runbook(alerts: set[str], files: set[str]) -> set[str]:
    return {name for name in alerts if f"{name}.md" not in files}


def orphans(alerts: set[str], files: set[str]) -> set[str]:
    return {name for name in files if name.removesuffix(".md") not in alerts}


def steps(catalogue: Catalogue) -> list[tuple[str, Step]]:
    return [
        (name, step)
        for name, alerts in alerts_by_name(catalogue).items()
        for step in (*alerts[0].runbook.look, *alerts[0].runbook.mitigate, *addresses.STEPS)
    ]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    alerts = set(alerts_by_name(CATALOGUE))
    files = {path.name for path in FOLDER.iterdir()}
    assert without_runbook(alerts, files) == set()
    assert orphans(alerts, files) == set()


def test_a_missing_runbook_and_an_orphan_are_named() -> None:
    assert without_runbook({"ADown", "BDown"}, {"ADown.md"}) == {"BDown"}
    assert orphans({"ADown"}, {"ADown.md", "Old.md"}) == {"Old.md"}


def test_every_runbook_answers_every_question_in_the_same_order(catalogue: Catalogue) -> None:
    for name, text in runbooks(catalogue).items():
        assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS, name
        assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 3, name


def test_every_line_of_promql_is_a_query_about_this_service(catalogue: Catalogue) -> None:
    found = [
        finding
        for name, step in steps(catalogue)
        if step.language == "promql"
        for line in step.code.splitlines()
        for finding in lint(catalogue, name, line)
    ]
    assert found == []


def test_every_command_is_well_formed_shell() -> None:
    for name, step in steps(CATALOGUE):
        if step.language == "sh":
            done = subprocess.run(
                ["bash", "-n", "-c", step.code], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), name


def test_every_variable_a_command_takes_from_the_shell_is_set_by_both_kinds_of_stack() -> None:
    local, containers, _ = addresses.STEPS
    for name in addresses.VARIABLES:
        assert f"{name}=" in local.code
        assert f"{name}=" in containers.code
    in_container = {"POSTGRES_PASSWORD", "POSTGRES_USER", "TASKSCOPE_MULTIPROCESS_DIR"}
    known = {*addresses.VARIABLES, "USER", "NF", *in_container}
    for name, text in runbooks(CATALOGUE).items():
        steps, _, rest = text.partition("## Addresses and logins")
        assert set(re.findall(r"\$\{?([A-Z_]{2,})", steps)) <= known, name
        assert rest, name


def test_every_taskscope_command_a_runbook_names_exists() -> None:
    named = {
        words
        for text in runbooks(CATALOGUE).values()
        for words in re.findall(
            r"\btaskscope ((?:[a-z]+)(?: (?:setup|clear|tail|top|verify))?)", text
        )
    }
    assert named <= {
        "build",
        "check",
        "up",
        "doctor",
        "fault clear",
        "logs setup",
        "logs tail",
        "logs top",
        "logs verify",
    }


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_no_runbook_begins_like_a_page(name: str) -> None:
    assert not (FOLDER / name).read_text("utf-8").startswith("<")


def test_every_runbook_links_only_runbooks_that_exist() -> None:
    known = set(alerts_by_name(CATALOGUE))
    named = re.compile(rf"\b(?:[A-Z][a-z]+)+(?:{'|'.join(STATES)})\b")
    for name, text in runbooks(CATALOGUE).items():
        assert set(named.findall(text)) <= known, name


@pytest.mark.parametrize(
    "words",
    [
        "99.9 % of requests good over any 30 days",
        "0.1 % may be bad",
        "`outcome` is `server_error` or `timeout`",
        "| 5m and 1h | 1.44 % | 14.4 | 2 % | 2 d 2 h |",
        "lasts 43 min 12 s",
    ],
)
def test_a_burning_budget_is_explained_in_the_objectives_own_numbers(words: str) -> None:
    assert words in runbooks(CATALOGUE)["AvailabilityBudgetFastBurn.md"]
