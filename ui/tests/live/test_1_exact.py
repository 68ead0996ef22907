"""What was sent is what Prometheus and Elasticsearch hold: no request more, none less."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Live, until

pytestmark = [pytest.mark.engine, pytest.mark.stack]

REQUESTS = 'sum(http_server_request_duration_seconds_count{job="taskapi"})'


def test_prometheus_counts_exactly_the_requests_that_were_sent(
    live: Live, counted: dict[str, Any]
) -> None:
    until(lambda: live.value(REQUESTS) == counted["sent"], within_s=40)


def test_the_answers_have_the_statuses_that_their_sender_saw(
    live: Live, counted: dict[str, Any]
) -> None:
    rows = live.query(REQUESTS.replace("sum(", "sum by (http_response_status_code) ("))
    held = {row["metric"]["http_response_status_code"]: int(float(row["value"][1])) for row in rows}
    assert held == counted["by_status"]


@pytest.mark.parametrize(
    ("series", "route", "status"),
    [
        ("taskapi_tasks_created_total", "POST /api/v1/tasks", "201"),
        ("taskapi_tasks_deleted_total", "DELETE /api/v1/tasks/{task_id}", "204"),
        ("taskapi_users_registered_total", "POST /api/v1/auth/register", "201"),
    ],
)
def test_business_counters_agree_with_the_answers(
    live: Live, counted: dict[str, Any], series: str, route: str, status: str
) -> None:
    assert (
        live.value(f'sum({series}{{job="taskapi"}})') == counted["answers"][f"{route} {status}"] > 0
    )


def test_logins_are_counted_by_result(live: Live, counted: dict[str, Any]) -> None:
    answers, login = counted["answers"], "POST /api/v1/auth/login"
    logins = 'sum(taskapi_logins_total{{job="taskapi", result="{}"}})'
    assert live.value(logins.format("success")) == answers[f"{login} 200"]
    assert live.value(logins.format("bad_credentials")) == answers[f"{login} 401"]


def test_every_request_left_one_line_in_elasticsearch(live: Live, counted: dict[str, Any]) -> None:
    served = {"match_phrase": {"message": "request served"}}
    until(lambda: live.count(served) == counted["sent"], within_s=40)


def test_the_line_of_one_chosen_request_is_found_by_its_trace(
    live: Live, counted: dict[str, Any]
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = live.client.get(
        f"{live.address('api')}/api/v1/tasks",
        headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
    )
    assert answer.status_code == 401
    request = answer.headers["x-request-id"]
    (told,) = until(lambda: live.search({"term": {"http.request.id": request}}), within_s=40)
    ours = told["_source"]["trace.id"]
    assert ours != trace  # a stranger's word does not choose the trace; it is linked to
    hits = live.search({"term": {"trace.id": ours}})
    assert [hit["_source"]["http.request.id"] for hit in hits] == [request]
