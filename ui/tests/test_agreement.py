"""One planted fault for each way in which rules, boards and runbooks can disagree with a catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
import yaml

from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Window
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope_taskapi.catalogue import CATALOGUE
from taskscope_ui.agreement import disagreements
from taskscope_ui.artefacts import collect

RULES = "alerts/generated/taskapi.rules.yml"
BOARD = "dashboards/generated/taskapi-oncall.json"

ORDERS = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were placed.",
    owner="shop",
    labels=(Label("channel", values=("web", "app")),),
)
SHOP = Catalogue(
    service="shop",
    metrics=(ORDERS,),
    objectives=(
        Objective(
            name="orders-answered",
            title="Orders answered",
            metric=REQUEST_DURATION,
            target=Decimal("0.995"),
            window=Window(days=7),
            bad=Match(label="outcome", values=("server_error",)),
        ),
    ),
)


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return collect(CATALOGUE)


@pytest.fixture
def found(rendered: dict[str, str]) -> Callable[..., list[str]]:
    """The disagreements after files were changed: text by path, None for a file that is gone."""

    def disagree(catalogue: Catalogue = CATALOGUE, **changed: str | None) -> list[str]:
        files = {path: text for path, text in {**rendered, **changed}.items() if text is not None}
        return [str(finding) for finding in disagreements(catalogue, files)]

    return disagree


def with_rule(text: str, **rule: str) -> str:
    rules = yaml.safe_load(text)
    rules["groups"][0]["rules"].append(rule)
    return yaml.safe_dump(rules)


def with_panel(text: str, expr: str) -> str:
    board = json.loads(text)
    board["panels"].append({"title": "Planted", "targets": [{"expr": expr}]})
    return json.dumps(board)


def test_what_is_rendered_agrees(found: Callable[..., list[str]]) -> None:
    assert found() == []


def test_a_second_service_agrees_as_well() -> None:
    assert [str(finding) for finding in disagreements(SHOP, collect(SHOP))] == []


def test_a_service_without_objectives_needs_no_series_about_them() -> None:
    bare = Catalogue(service="bare")
    assert [str(finding) for finding in disagreements(bare, collect(bare))] == []


def test_a_misspelt_metric_in_a_board_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    planted = with_panel(
        rendered[BOARD], 'sum(rate(taskapi_tasks_creatd_total{job="taskapi"}[$__rate_interval]))'
    )
    (finding,) = found(**{BOARD: planted})
    assert finding.startswith(
        f"{BOARD}: Planted: metric taskapi_tasks_creatd_total is not in the catalogue; did you mean"
    )


def test_an_unknown_label_in_a_rule_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    expr = 'sum(rate(taskapi_logins_total{job="taskapi", outcome="ok"}[5m])) > 9'
    planted = with_rule(rendered[RULES], alert="Watchdog", expr=expr)
    (finding,) = found(**{RULES: planted})
    assert "taskapi_logins_total has no label outcome" in finding


def test_a_query_that_does_not_parse_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    (finding,) = found(**{BOARD: with_panel(rendered[BOARD], "sum(")})
    assert "does not parse" in finding


def test_an_alert_without_a_runbook_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    planted = with_rule(rendered[RULES], alert="Untold", expr='up{job="taskapi"} == 0')
    assert found(**{RULES: planted}) == [
        f"{RULES}: alert Untold has no runbook; render alerts/runbooks/Untold.md, or drop the alert"
    ]


def test_an_empty_runbook_is_none(found: Callable[..., list[str]]) -> None:
    assert any(
        "alert Watchdog has no runbook" in f for f in found(**{"alerts/runbooks/Watchdog.md": "\n"})
    )


def test_a_metric_that_nobody_asks_is_found(found: Callable[..., list[str]]) -> None:
    more = Catalogue(
        service=CATALOGUE.service,
        metrics=(*CATALOGUE.metrics, ORDERS),
        objectives=CATALOGUE.objectives,
    )
    assert found(catalogue=more) == [
        (
            "taskapi: metric shop.orders is asked by no rule or panel; "
            "give shop_orders_total a panel or a rule, or stop declaring it"
        )
    ]


def test_a_series_that_is_no_longer_recorded_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    rules = yaml.safe_load(rendered[RULES])
    for group in rules["groups"]:
        group["rules"] = [
            r for r in group["rules"] if r.get("record") != "service:http_requests:rate5m"
        ]
    (finding,) = found(**{RULES: yaml.safe_dump(rules)})
    assert "series service:http_requests:rate5m is recorded by no rule" in finding


def test_a_recorded_series_that_the_catalogue_does_not_name_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    planted = with_rule(
        rendered[RULES], record="job:requests:rate9m", expr='sum(up{job="taskapi"})'
    )
    (finding,) = found(**{RULES: planted})
    assert "records job:requests:rate9m" in finding


@pytest.mark.parametrize("text", ["{", "[]", "groups: 3", "groups:\n- rules:\n  - expr: up\n"])
def test_a_rules_file_that_is_none_is_a_finding(found: Callable[..., list[str]], text: str) -> None:
    assert any("cannot be read as a rules file" in finding for finding in found(**{RULES: text}))


@pytest.mark.parametrize("text", ["{", "[]", '{"templating": {"list": [3]}}'])
def test_a_board_that_is_none_is_a_finding(found: Callable[..., list[str]], text: str) -> None:
    assert any("cannot be read as a board" in finding for finding in found(**{BOARD: text}))


def test_a_variable_that_asks_for_an_unknown_label_is_found(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    path = "dashboards/generated/taskapi-requests.json"
    planted = rendered[path].replace(', http_route)"', ', http_rout)"')
    assert any("http_rout" in finding for finding in found(**{path: planted}))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"panels": [[' + '{"a":' * 50_000])
def test_a_board_nested_without_end_is_named(found: Callable[..., list[str]], text: str) -> None:
    assert f"{BOARD}: cannot be read as a board; run `taskscope build`, or delete it" in found(
        **{BOARD: text}
    )


def test_a_query_too_deep_for_the_parser_is_named(
    rendered: dict[str, str], found: Callable[..., list[str]]
) -> None:
    expr = f"{'(' * 50_000}up{')' * 50_000}"
    (line,) = found(**{BOARD: with_panel(rendered[BOARD], expr)})
    assert line.startswith(f"{BOARD}: Planted: is longer than 20000 characters, or has more than")
