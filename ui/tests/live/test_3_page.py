"""The manager's page shows, in a real browser, the number that Prometheus answers for the same moment."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from taskscope.testing.engines import chromium

from .conftest import Live, until

pytestmark = [pytest.mark.engine, pytest.mark.stack]

RATE = 'service:http_requests:rate5m{service="taskapi"}'


@pytest.fixture
def page(live: Live) -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(chromium.find()), args=list(chromium.flags())
        )
        opened = browser.new_page()
        opened.goto(live.address("page"))
        yield opened
        browser.close()


def test_the_page_shows_the_request_rate_that_prometheus_answers(
    live: Live, steady: float, page: Page
) -> None:
    card = page.get_by_test_id("stMetric").filter(has_text="Requests per second")
    value = card.get_by_test_id("stMetricValue")
    value.wait_for(timeout=30_000)

    def same() -> bool:
        # The page renews itself each 10 s and rules write each 15 s: ask until both speak of one evaluation.
        shown = float(re.sub(r"[^0-9.]", "", value.inner_text()))
        held = live.value(RATE)
        return held is not None and abs(shown - held) < 0.05 + 0.005 * held

    until(same, within_s=45)


def test_the_preview_draws_the_on_call_board_without_an_empty_panel(
    live: Live, steady: float, page: Page
) -> None:
    page.goto(live.address("boards"))
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    assert page.locator("[data-nodata]").count() == 0
