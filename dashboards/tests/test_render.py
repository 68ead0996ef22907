"""The generated dashboards: today's schema, whole, stable, and asking only for what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskscope.catalogue import Catalogue
from taskscope.catalogue.links import BOARDS, board_uid
from taskscope.testing.promql import lint, selected_series
from taskscope_dashboards import boards, render
from taskscope_dashboards.board import Board, Row
from taskscope_dashboards.layout import Rectangle, overlaps
from taskscope_dashboards.panel import Query
from taskscope_taskapi.catalogue import CATALOGUE

HERE = Path(__file__).parents[1]
VARIABLES = {"route": ".*", "method": ".*", "level": ".*", "exception": ".*"}
TODAY = {"timeseries", "stat", "table", "heatmap", "logs", "row"}

Dashboard = dict[str, Any]


def dashboards(catalogue: Catalogue) -> list[Dashboard]:
    return [json.loads(text) for text in render(catalogue).values()]


def panels(dashboard: Dashboard) -> list[Dashboard]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def findings(catalogue: Catalogue, board: Board) -> list[str]:
    return [
        finding
        for panel in board.panels
        for query in panel.queries
        for finding in lint(
            catalogue,
            f"{board.uid}: {panel.title}",
            query.expr,
            variables=VARIABLES,
            instant=query.instant,
            rate_interval=True,
        )
    ]


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_the_committed_files_are_what_the_catalogue_gives() -> None:
    committed = {
        f"generated/{path.name}": path.read_text("utf-8") for path in (HERE / "generated").iterdir()
    }

    assert committed == render(CATALOGUE)


def test_the_files_are_named_by_their_uid(catalogue: Catalogue) -> None:
    names = {f"generated/{board_uid(catalogue.service, slug)}.json" for slug in BOARDS}

    assert set(render(catalogue)) == names
    for name, text in render(catalogue).items():
        assert name == f"generated/{json.loads(text)['uid']}.json"


def test_the_same_catalogue_gives_the_same_bytes(catalogue: Catalogue) -> None:
    assert render(catalogue) == render(catalogue)


def test_a_file_is_today_s_schema(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        assert dashboard["schemaVersion"] == 42
        assert {panel["type"] for panel in dashboard["panels"]} <= TODAY
        assert not {"rows", "hideControls", "sharedCrosshair", "style", "__inputs"} & set(dashboard)
        assert "null" not in set(strings(dashboard))


def test_every_panel_is_described_and_has_a_unit_and_a_source(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        for panel in panels(dashboard):
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"]["uid"] in ("${prometheus}", "${logs}")
            unit = panel["fieldConfig"]["defaults"].get("unit") or panel["options"].get(
                "yAxis", {}
            ).get("unit")
            assert unit or panel["type"] == "logs", panel["title"]
            assert panel["targets"]
            assert all(t["datasource"] == panel["datasource"] for t in panel["targets"])


def test_thresholds_are_numbers_over_a_null(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        for panel in panels(dashboard):
            first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert first["value"] is None
            assert all(isinstance(step["value"], float) for step in others)


def test_no_line_is_drawn_over_an_outage(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        for panel in panels(dashboard):
            if panel["type"] == "timeseries":
                assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] == 60_000
                assert panel["fieldConfig"]["defaults"]["custom"]["showPoints"] == "auto"


def test_nothing_overlaps_and_every_id_is_its_own(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        places = [
            Rectangle(g["x"], g["y"], g["w"], g["h"])
            for g in (panel["gridPos"] for panel in dashboard["panels"])
        ]
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        assert not any(overlaps(a, b) for i, a in enumerate(places) for b in places[i + 1 :])


def test_every_variable_that_is_used_is_declared(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        declared = {variable["name"] for variable in dashboard["templating"]["list"]}
        text = json.dumps(dashboard["panels"])
        used = {name for name in (*VARIABLES, "search") if re.search(rf"\$\{{?{name}\b", text)}
        assert used | {"prometheus", "logs"} == declared


def test_the_sources_default_to_the_provisioned_ones(catalogue: Catalogue) -> None:
    for dashboard in dashboards(catalogue):
        sources = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
        assert [v["current"]["value"] for v in sources] == ["prometheus", "elasticsearch"]


def test_every_query_is_clean(catalogue: Catalogue) -> None:
    assert [f for board in boards(catalogue) for f in findings(catalogue, board)] == []


def test_every_marked_event_is_asked_cleanly(catalogue: Catalogue) -> None:
    events = [event for board in boards(catalogue) for event in board.annotations]

    assert [f for event in events for f in lint(catalogue, event.name, event.expr)] == []


def test_every_metric_of_the_catalogue_is_asked_by_a_panel(catalogue: Catalogue) -> None:
    asked = {
        series
        for board in boards(catalogue)
        for panel in board.panels
        for query in panel.queries
        for series in selected_series(query.expr, VARIABLES)
    }

    assert [m.name for m in catalogue.all_metrics if not asked.intersection(m.exposed)] == []


def test_a_misspelt_metric_in_a_board_is_found() -> None:
    board = boards(CATALOGUE)[0]
    first = board.rows[0].panels[0]
    wrong = replace(
        first, queries=(Query(expr='process_cpu_second_total{job="taskapi"}', legend="x"),)
    )
    planted = replace(board, rows=(Row(title="Planted", panels=(wrong,)),))

    assert findings(CATALOGUE, planted) == [
        (
            "taskapi-oncall: Error budget left: metric process_cpu_second_total is not in the catalogue; "
            "did you mean process_cpu_seconds_total"
        )
    ]


def test_every_rule_of_the_objectives_is_drawn_as_a_threshold() -> None:
    dashboard = dashboards(CATALOGUE)[0]
    bounds = {
        step["value"]
        for panel in panels(dashboard)
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    }

    assert {0.3, 0.001} <= bounds


def test_a_route_in_a_table_leads_to_its_requests() -> None:
    dashboard = dashboards(CATALOGUE)[0]
    table = next(p for p in panels(dashboard) if p["title"] == "Routes by server errors")
    links = [
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
        for link in prop["value"]
    ]

    assert links == [
        "/d/taskapi-requests?from=${__from}&to=${__to}&var-route=${__value.text:percentencode}"
    ]


@pytest.mark.parametrize("part", ["exemplar"])
def test_latency_shows_exemplars(part: str) -> None:
    shown = {
        dashboard["uid"]
        for dashboard in dashboards(CATALOGUE)
        if any(t.get(part) for panel in panels(dashboard) for t in panel["targets"])
    }
    assert shown == {"taskapi-oncall", "taskapi-requests"}
