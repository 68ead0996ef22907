"""Half of the requests fail: the page reaches Alertmanager, and its error lines reach Elasticsearch."""

from __future__ import annotations

import pytest

from .conftest import Live, until

pytestmark = [pytest.mark.engine, pytest.mark.stack]

PAGE = ("AvailabilityBudgetFastBurn", "page")


@pytest.mark.timeout(300)
def test_half_of_the_requests_failing_pages_within_three_minutes(live: Live, steady: float) -> None:
    assert PAGE not in live.alerts()
    live.plant(errors=0.5)
    until(lambda: PAGE in live.alerts(), within_s=180)


def test_the_failed_requests_left_their_exception_in_the_log(live: Live) -> None:
    failed = {
        "bool": {"filter": [{"term": {"log.level": "error"}}, {"exists": {"field": "error.type"}}]}
    }
    hits = until(lambda: live.search(failed), within_s=30)
    assert all(hit["_source"]["trace.id"] for hit in hits)


def test_clearing_the_fault_ends_the_errors(live: Live) -> None:
    live.plant(errors=0)
    failing = 'sum(increase(http_server_request_duration_seconds_count{job="taskapi", outcome="server_error"}[30s]))'
    until(lambda: live.value(failing) == 0, within_s=90)
