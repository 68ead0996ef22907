"""The boards against a real Prometheus, asked query by query and drawn in a real browser."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from taskscope.catalogue import Catalogue
from taskscope.testing.engines import chromium, free_port, running
from taskscope.testing.engines.prometheus import prometheus, promtool
from taskscope.testing.history import ROUTES, STEP_S, Requests, openmetrics
from taskscope.testing.promql import substitute
from taskscope_dashboards import boards
from taskscope_dashboards.preview import Logs, Prometheus, preview_server
from taskscope_taskapi.catalogue import CATALOGUE

from .conftest import ALL

pytestmark = pytest.mark.engine

VARIABLES = {"route": ".*", "method": ".*", "level": ".*", "exception": ".*"}


@dataclass(frozen=True)
class Past:
    """A Prometheus that holds an hour of history up to `end_s`."""

    url: str
    end_s: int

    def ask(self, expr: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": substitute(expr, VARIABLES), "time": self.end_s})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        assert isinstance(result, list)
        return result


@contextmanager
def past(
    catalogue: Catalogue, folder: Path, routes: Requests = ROUTES, more: str = ""
) -> Iterator[Past]:
    """A Prometheus with the catalogue's history. more: further OpenMetrics, with `{end}` for its last second."""
    end_s = int(time.time()) // STEP_S * STEP_S
    source = folder / "history.om"
    usual = openmetrics(catalogue, end_s=end_s, routes=routes)
    source.write_text(usual.replace("# EOF", more.replace("{end}", str(end_s)) + "# EOF"))
    config = folder / "prometheus.yml"
    config.write_text("global: {scrape_interval: 10s}\n")
    made = promtool("tsdb", "create-blocks-from", "openmetrics", "-q", source, folder / "data")
    assert made.returncode == 0, made.stderr
    port = free_port()
    with running(prometheus(folder, port=port, config=config)):
        yield Past(f"http://127.0.0.1:{port}", end_s)


@pytest.fixture(scope="module")
def service_past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with past(CATALOGUE, tmp_path_factory.mktemp("past")) as made:
        yield made


@contextmanager
def previewed(
    past: Past, logs: Logs | None = None, catalogue: Catalogue = CATALOGUE
) -> Iterator[str]:
    """The address of a preview of that Prometheus."""
    server = preview_server(catalogue, prometheus=Prometheus(past.url), logs=logs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = chromium.find()
    if binary is None:
        pytest.skip(f"chromium is not installed; {chromium.REMEDY}")
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=str(binary), args=list(chromium.flags()))
        yield made
        made.close()


@contextmanager
def opened(
    browser: Browser,
    past: Past,
    address: str,
    slug: str,
    choice: str = "",
    service: str = CATALOGUE.service,
) -> Iterator[tuple[Page, list[str]]]:
    """A page that has drawn a board's hour, and all that the browser complained of or asked elsewhere."""
    said: list[str] = []
    end_ms = past.end_s * 1000
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on(
        "request", lambda asked: asked.url.startswith((address, "data:,")) or said.append(asked.url)
    )
    page.goto(f"{address}/d/{service}-{slug}?from={end_ms - 3_600_000}&to={end_ms}{choice}")
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    yield page, said
    page.close()


@pytest.fixture(scope="module")
def page_address(service_past: Past) -> Iterator[str]:
    with previewed(service_past) as address:
        yield address


def test_every_query_of_every_board_answers_on_a_healthy_service(service_past: Past) -> None:
    empty = [
        f"{board.uid}: {panel.title}: {query.expr}"
        for board in boards(CATALOGUE)
        for panel in board.panels
        for query in panel.queries
        if not service_past.ask(query.expr)
    ]

    assert empty == []


def test_a_panel_of_errors_shows_zero_where_there_were_none(service_past: Past) -> None:
    oncall, *_ = boards(CATALOGUE)
    (panel,) = (p for p in oncall.panels if p.title == "Routes by server errors")
    values = [float(row["value"][1]) for row in service_past.ask(panel.queries[0].expr)]

    assert values
    assert set(values) == {0.0}


@pytest.mark.parametrize("slug", ["oncall", "requests", "runtime", "logs"])
def test_the_page_draws_every_panel_with_data(
    browser: Browser, page_address: str, service_past: Past, slug: str
) -> None:
    with opened(browser, service_past, page_address, slug) as (page, said):
        report = page.evaluate("window.report")
        empty = page.locator("[data-nodata], [data-error]").count()
        page_title = page.title()

    assert said == []
    assert page_title.startswith("ready")
    assert [one["title"] for one in report if one["error"] or one["noData"]] == []
    assert [one["title"] for one in report if one["type"] != "logs" and not one["series"]] == []
    assert empty == 0


def test_a_service_with_every_group_has_every_panel_of_the_runtime_board_drawn(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        past(ALL, tmp_path) as made,
        previewed(made, catalogue=ALL) as address,
        opened(browser, made, address, "runtime", service=ALL.service) as (page, said),
    ):
        report = page.evaluate("window.report")
    _, _, board, _ = boards(ALL)

    assert said == []
    assert sorted(one["title"] for one in report) == sorted(panel.title for panel in board.panels)
    assert [one["title"] for one in report if one["error"] or not one["series"]] == []


def test_choosing_a_route_narrows_every_panel_to_it(
    browser: Browser, page_address: str, service_past: Past
) -> None:
    route = "/api/v1/tasks/{task_id}"
    choice = f"&var-route={urllib.parse.quote(route, safe='')}"
    with opened(browser, service_past, page_address, "requests", choice) as (page, said):
        drawn = page.locator(".legend td:first-child", has_text="/api/").all_inner_texts()
        chosen = page.locator("#var-route").input_value()

    assert said == []
    assert chosen == route
    assert set(drawn) == {route}


def test_a_link_in_a_table_opens_that_route(
    browser: Browser, page_address: str, service_past: Past
) -> None:
    with opened(browser, service_past, page_address, "oncall") as (page, said):
        page.get_by_role("link", name="/api/v1/tasks/statistics").first.click()
        page.wait_for_selector("html[data-ready] #var-route", timeout=30_000)
        chosen = page.locator("#var-route").input_value()

    assert said == []
    assert chosen == "/api/v1/tasks/statistics"


def test_a_hostile_label_value_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    hostile = '<img src=x onerror=alert(1)>"\\} or up{'
    with (
        past(CATALOGUE, tmp_path, routes=(("GET", hostile, "200", "ok"),)) as made,
        previewed(made) as address,
        opened(browser, made, address, "requests", f"&var-route={urllib.parse.quote(hostile)}") as (
            page,
            said,
        ),
    ):
        shown = page.locator(".legend td:first-child", has_text="<img").first.inner_text()
        report = page.evaluate("window.report")

    assert shown == hostile
    assert said == []
    assert [one["title"] for one in report if one["error"] or one["noData"]] == []


def test_a_prometheus_that_is_gone_is_told_in_every_panel(
    browser: Browser, service_past: Past
) -> None:
    gone = Past(f"http://127.0.0.1:{free_port()}", service_past.end_s)
    with previewed(gone) as address, opened(browser, gone, address, "oncall") as (page, _):
        report = page.evaluate("window.report")
        told = page.locator("[data-error]").first.inner_text()

    assert all("does not answer" in one["error"] for one in report if one["type"] != "logs")
    assert "is it running?" in told


def test_a_firing_alert_is_shown_with_its_age_and_a_pending_one_is_not(tmp_path: Path) -> None:
    more = ""
    for name, state in (("ApiErrorBudgetBurn", "firing"), ("TargetDown", "pending")):
        labels = f'alertname="{name}",service="taskapi",severity="page"'
        more += f'# TYPE ALERTS gauge\nALERTS{{{labels},alertstate="{state}"}} 1 {{end}}\n'
        more += f"# TYPE ALERTS_FOR_STATE gauge\nALERTS_FOR_STATE{{{labels}}} 1700000000 {{end}}\n"
    oncall, *_ = boards(CATALOGUE)
    (panel,) = (p for p in oncall.panels if p.title == "Firing alerts")

    with past(CATALOGUE, tmp_path, more=more) as made:
        rows = made.ask(panel.queries[0].expr)

    assert [(row["metric"]["alertname"], row["value"][1]) for row in rows] == [
        ("ApiErrorBudgetBurn", "1700000000000")
    ]


def test_where_nothing_fires_one_row_says_so(service_past: Past) -> None:
    oncall, *_ = boards(CATALOGUE)
    (panel,) = (p for p in oncall.panels if p.title == "Firing alerts")

    assert [row["metric"] for row in service_past.ask(panel.queries[0].expr)] == [
        {"alertname": "none"}
    ]
