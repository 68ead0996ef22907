"""The capacity page as its reader meets it: with data, without, and with hostile addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from taskscope.testing.engines import free_port
from taskscope_ui.sources.prometheus import Prometheus
from taskscope_ui.wording import rate

APP = Path(__file__).parents[1] / "taskscope_ui/app.py"
HOSTILE = [
    '3h"} or up{',
    "<img src=x onerror=alert(1)>",
    "[here](javascript:alert(1))",
    "99999h",
    "",
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the page as one whose Prometheus is at `url`."""

    def open_page(url: str, **query: str) -> AppTest:
        monkeypatch.setenv("PROMETHEUS_URL", url)
        monkeypatch.delenv("PAGE_APP", raising=False)
        page = AppTest.from_file(str(APP), default_timeout=20)
        for name, value in query.items():
            page.query_params[name] = value
        return page.run()

    return open_page


def texts(page: AppTest) -> str:
    """All that the page says, errors first."""
    parts = (page.error, page.warning, page.info, page.success, page.text, page.caption)
    return "\n".join(str(element.value) for group in parts for element in group)


def metric(page: AppTest, label: str) -> str:
    return next(str(m.value) for m in page.metric if m.label == label)


@pytest.mark.engine
def test_every_measure_is_shown_with_its_value(opened: Any, backfilled: Any) -> None:
    page = opened(backfilled.url)
    assert [m.label for m in page.metric] == [
        "Requests per second",
        "Response time, 95 % are faster",
        "Failed requests",
        "Database pool in use",
        "Requests without a server error",
        "Requests under 300 ms",
    ]
    assert not any(m.value == "no data" for m in page.metric)


@pytest.mark.engine
def test_the_request_rate_is_the_one_that_prometheus_answers(opened: Any, backfilled: Any) -> None:
    client = Prometheus(url=backfilled.url)
    query = 'service:http_requests:rate5m{service="taskapi"}'
    before = rate(client.instant(query)[0].point.value)
    page = opened(backfilled.url)
    after = rate(client.instant(query)[0].point.value)
    assert metric(page, "Requests per second") in (before, after)


@pytest.mark.engine
def test_the_verdict_stands_on_top(opened: Any, backfilled: Any) -> None:
    page = opened(backfilled.url)
    assert re.fullmatch(
        r"The service is at \d+ % of what it can carry; (nearest limit: [a-z ]+, \d+ %|no other limit is nearer)\.",
        page.success[0].value.replace("\\", ""),
    )


@pytest.mark.engine
def test_the_time_of_the_data_and_the_instances_are_told(opened: Any, backfilled: Any) -> None:
    page = opened(backfilled.url)
    assert re.search(r"As of \d+ \w{3} \d{4}, \d\d:\d\d:\d\d UTC · 2 instances up", texts(page))


@pytest.mark.engine
@pytest.mark.parametrize("chosen", ["1h", "3h", "12h", "24h"])
def test_the_hours_shown_may_stand_in_the_address(
    opened: Any, backfilled: Any, chosen: str
) -> None:
    page = opened(backfilled.url, range=chosen)
    assert page.session_state["range"] == chosen


@pytest.mark.engine
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_an_address_that_names_no_hours_is_not_believed(
    opened: Any, backfilled: Any, value: str
) -> None:
    page = opened(backfilled.url, range=value, other=value)
    assert (page.session_state["range"], page.query_params["range"], len(page.query_params)) == (
        "3h",
        "3h",
        1,
    )
    assert not page.exception


@pytest.mark.engine
def test_data_that_ended_hours_ago_is_not_sold_as_now(opened: Any, stopped: Any) -> None:
    page = opened(stopped.url, range="1h")
    assert "Data until" in page.warning[0].value
    assert not page.exception
    assert not page.success


@pytest.mark.engine
def test_a_service_of_which_nothing_runs_is_said_to_be_down(opened: Any, stopped: Any) -> None:
    assert "No instance of taskapi answers" in opened(stopped.url).error[0].value


@pytest.mark.engine
def test_a_prometheus_without_data_is_told_from_one_that_is_away(opened: Any, blank: Any) -> None:
    said = texts(opened(blank.url))
    assert "No data of taskapi yet" in said
    assert "taskscope doctor" in said


def test_an_unreachable_prometheus_is_said_with_the_remedy(opened: Any) -> None:
    port = free_port()
    page = opened(f"http://127.0.0.1:{port}")
    assert page.error[0].value == "The measurements cannot be reached."
    assert page.text[0].value == (
        f"Prometheus at http://127.0.0.1:{port} does not answer (connection refused); "
        "start it with `taskscope up`, or set PROMETHEUS_URL"
    )
    assert not page.exception


@pytest.mark.engine
def test_when_prometheus_goes_away_the_page_says_until_when_it_knew(
    opened: Any, backfilled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(backfilled.url)
    monkeypatch.setenv("PROMETHEUS_URL", f"http://127.0.0.1:{free_port()}")
    assert "Data until" in texts(page.run())


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PROMETHEUS_URL", "nowhere", "PROMETHEUS_URL is no address"),
        ("PAGE_CAPACITY_RPS", "fast", "PAGE_CAPACITY_RPS='fast' is no number"),
        ("PAGE_APP", "no_such_module", "no module no_such_module"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    page = AppTest.from_file(str(APP), default_timeout=20).run()
    assert says in page.text[0].value
    assert not page.exception
