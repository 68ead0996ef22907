"""The script in a real Chromium: what a visit measured is among the series, and the page is not disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from taskscope.catalogue.groups import (
    BEACON_REFUSED,
    BROWSER_ERRORS,
    LAYOUT_SHIFT,
    WEB_VITAL_DURATION,
    WEB_VITALS,
)
from taskscope.metrics.instruments import Instruments
from taskscope.probes.pages import Pages, templates_of
from taskscope.probes.webvitals import WebVitalsBeacon
from taskscope.testing.engines import chromium
from taskscope.testing.metrics import isolated, value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until

pytestmark = pytest.mark.engine

ROUTE = {"http_route": "/tasks/{task_id}"}
PAGE = """<!doctype html>
<title>task</title>
<script src="/vitals.js" async></script>
<h1>A task</h1>
<button id="slow">work</button>
<p id="below">below</p>
<script>
function busy(ms) { const end = performance.now() + ms; while (performance.now() < end); }
document.getElementById("slow").addEventListener("click", () => busy(120));
window.fail = () => setTimeout(() => { throw new Error("planted"); });
window.reject = () => { Promise.reject(new Error("planted")); };
window.shift = () => {
  const box = document.createElement("div");
  box.style.height = "300px";
  document.body.prepend(box);
};
</script>
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
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


@pytest.fixture
def instruments() -> Instruments:
    return isolated(*WEB_VITALS)


@pytest.fixture
def url(instruments: Instruments) -> Iterator[str]:
    """A service with one page and the beacon."""
    app = FastAPI()

    @app.get("/tasks/{task_id}")
    def task() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"content-security-policy": "connect-src 'self'"})

    with serving(app) as address:
        beacon = WebVitalsBeacon(instruments, Pages(templates_of(app)), origins=[address])
        app.add_route("/vitals", beacon, methods=None, include_in_schema=False)  # type: ignore[arg-type] # an ASGI app is a route's endpoint too
        app.add_route("/vitals.js", beacon, methods=None, include_in_schema=False)  # type: ignore[arg-type] # see above
        yield address


def test_a_visit_is_reported_when_the_page_is_left(
    browser: Any, url: str, instruments: Instruments
) -> None:
    def count(vital: str) -> float:
        return value(instruments.registry, WEB_VITAL_DURATION, vital=vital, **ROUTE)

    page = browser.new_page()
    page.goto(f"{url}/tasks/7?token=secret", wait_until="load")
    page.evaluate("shift()")
    page.evaluate("() => { fail(); fail(); reject(); }")
    page.wait_for_timeout(100)  # the browser's: the shift is drawn before the click excuses it
    page.click("#slow")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert count("lcp") == 0
    page.goto("about:blank")

    until(lambda: count("lcp") == 1, within_s=15)
    page.close()
    assert [count(vital) for vital in ("ttfb", "fcp", "lcp", "inp")] == [1, 1, 1, 1]
    slow = value(instruments.registry, WEB_VITAL_DURATION, part="sum", vital="inp")
    assert 0.1 <= slow < 5
    assert 0 < value(instruments.registry, LAYOUT_SHIFT, part="sum", **ROUTE) < 1
    assert value(instruments.registry, BROWSER_ERRORS, **ROUTE) == 3
    assert value(instruments.registry, BEACON_REFUSED) == 0


def test_a_page_that_is_hidden_and_shown_again_reports_its_vitals_once_and_its_errors_as_they_come(
    browser: Any, url: str, instruments: Instruments
) -> None:
    hide = """() => {
        Object.defineProperty(document, "visibilityState", {value: "hidden", configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
        delete document.visibilityState;
    }"""
    page = browser.new_page()
    page.goto(f"{url}/tasks/8", wait_until="load")
    page.evaluate(hide)
    page.evaluate("fail()")
    page.wait_for_timeout(50)
    page.evaluate(hide)
    page.goto("about:blank")

    until(lambda: value(instruments.registry, BROWSER_ERRORS, **ROUTE) == 1, within_s=15)
    page.close()
    assert value(instruments.registry, WEB_VITAL_DURATION, vital="ttfb") == 1
