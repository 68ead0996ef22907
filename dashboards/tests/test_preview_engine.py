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

from taskscope.catalogue import Catalogue
from taskscope.testing.engines import chromium, free_port, running
from taskscope.testing.engines.prometheus import prometheus, promtool
from taskscope.testing.history import STEP_S, openmetrics
from taskscope.testing.promql import substitute
from taskscope_dashboards import boards
from taskscope_dashboards.preview import Prometheus, preview_server
from taskscope_taskapi.catalogue import CATALOGUE

pytestmark = pytest.mark.engine

VARIABLES = {"route": ".*", "method": ".*"}


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
def past(catalogue: Catalogue, folder: Path) -> Iterator[Past]:
    """A Prometheus with the catalogue's history."""
    end_s = int(time.time()) // STEP_S * STEP_S
    source = folder / "history.om"
    source.write_text(openmetrics(catalogue, end_s=end_s))
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


@pytest.fixture(scope="module")
def page_address(service_past: Past) -> Iterator[str]:
    server = preview_server(CATALOGUE, prometheus=Prometheus(service_past.url))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_every_query_of_both_boards_answers_on_a_healthy_service(service_past: Past) -> None:
    empty = [
        f"{board.uid}: {panel.title}: {query.expr}"
        for board in boards(CATALOGUE)
        for panel in board.panels
        for query in panel.queries
        if not service_past.ask(query.expr)
    ]

    assert empty == []


def test_a_panel_of_errors_shows_zero_where_there_were_none(service_past: Past) -> None:
    oncall, _ = boards(CATALOGUE)
    (panel,) = (p for p in oncall.panels if p.title == "Routes by server errors")
    values = [float(row["value"][1]) for row in service_past.ask(panel.queries[0].expr)]

    assert values
    assert set(values) == {0.0}


@pytest.mark.parametrize("slug", ["oncall", "requests"])
def test_the_page_draws_every_panel_with_data(
    page_address: str, service_past: Past, slug: str
) -> None:
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    end_ms = service_past.end_s * 1000
    binary = chromium.find()
    if binary is None:
        pytest.skip(f"chromium is not installed; {chromium.REMEDY}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(binary), args=list(chromium.flags()))
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.on("console", lambda line: said.append(line.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{page_address}/d/taskapi-{slug}?from={end_ms - 3_600_000}&to={end_ms}")
        page.wait_for_selector("html[data-ready]", timeout=30_000)
        report = page.evaluate("window.report")
        empty = page.locator("[data-nodata], [data-error]").count()
        browser.close()

    assert said == []
    assert [one for one in report if one["error"] or one["noData"]] == []
    assert [one["title"] for one in report if one["type"] != "logs" and not one["series"]] == []
    assert empty == 0
