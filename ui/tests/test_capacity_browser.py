"""The served page in a real browser: the same numbers, nothing fetched elsewhere, nothing run that is not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from taskscope.testing.engines import HttpReady, Spec, chromium, free_port, running
from taskscope_ui import serve
from taskscope_ui.page_settings import PageSettings
from taskscope_ui.sources.prometheus import Prometheus
from taskscope_ui.wording import rate

pytestmark = pytest.mark.engine

RATE = 'service:http_requests:rate5m{service="taskapi"}'
PAYLOAD = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"


@pytest.fixture(scope="module")
def address(backfilled: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page of the backfilled Prometheus is served."""
    port, folder = free_port(), tmp_path_factory.mktemp("page")
    url = f"http://127.0.0.1:{port}"
    spec = Spec(
        name="page",
        argv=tuple(serve.command(port=port)),
        cwd=folder,
        env={**os.environ, **PageSettings(prometheus_url=backfilled.url).environ()},
        ports=(port,),
        ready=HttpReady(url=f"{url}{serve.HEALTH}"),
    )
    with running(spec):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a screen."""
    from playwright.sync_api import sync_playwright

    found = chromium.find()
    if found is None:
        pytest.skip(f"chromium is not installed; run: {chromium.REMEDY}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(found), args=list(chromium.flags())
        )
        yield started
        started.close()


def test_the_page_shows_the_rate_that_prometheus_answers(
    browser: Any, address: str, backfilled: Any
) -> None:
    client = Prometheus(url=backfilled.url)
    before = rate(client.instant(RATE)[0].point.value)
    page = browser.new_page()
    page.goto(address)
    card = page.get_by_test_id("stMetric").filter(has_text="Requests per second")
    shown = card.get_by_test_id("stMetricValue").inner_text(timeout=30_000)
    after = rate(client.instant(RATE)[0].point.value)
    page.close()
    assert shown in (before, after)


def test_the_page_draws_its_charts_and_asks_nobody_else(browser: Any, address: str) -> None:
    asked: set[str] = set()
    page = browser.new_page()
    page.on("request", lambda request: asked.add(request.url))
    page.goto(f"{address}/?range=1h")
    charts = page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg")
    charts.nth(4).wait_for(timeout=30_000)
    page.close()
    elsewhere = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    assert elsewhere == set()


def test_hostile_words_in_the_address_run_nothing(browser: Any, address: str) -> None:
    dialogs: list[str] = []
    page = browser.new_page()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/?range={PAYLOAD}&{PAYLOAD}={PAYLOAD}")
    page.get_by_test_id("stMetric").first.wait_for(timeout=30_000)
    page.wait_for_url(f"{address}/?range=3h", timeout=10_000)
    page.close()
    assert dialogs == []
