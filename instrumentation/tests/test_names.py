"""Every public name as a literal: a renamed series breaks boards, rules and habits, so it must be meant."""

from __future__ import annotations

from taskscope.catalogue.builtin import BUILTIN
from taskscope.catalogue.links import BOARDS, board_uid
from taskscope.catalogue.promql import RECORDED
from taskscope_taskapi.catalogue import CATALOGUE

BUILTIN_SERIES = {
    "db_client_connection_count": ("db_client_connection_state",),
    "db_client_connection_max": (),
    "http_server_active_requests": (),
    "http_server_request_duration_seconds": (
        "http_request_method",
        "http_route",
        "http_response_status_code",
        "outcome",
    ),
    "http_server_response_body_size_bytes": ("http_request_method", "http_route"),
    "process_cpu_seconds_total": (),
    "process_max_fds": (),
    "process_open_fds": (),
    "process_resident_memory_bytes": (),
    "process_start_time_seconds": (),
    "taskscope_build_info": ("service_version", "taskscope_version"),
    "taskscope_library_errors_total": ("component",),
    "taskscope_logs_dead_letters_total": (),
    "taskscope_logs_dropped_total": ("reason",),
    "taskscope_logs_duplicates_total": (),
    "taskscope_logs_lines_total": ("log_level",),
    "taskscope_logs_oldest_line_age_seconds": (),
    "taskscope_logs_retries_total": ("reason",),
    "taskscope_logs_shipped_total": (),
    "taskscope_shipper_connected": (),
    "taskscope_spool_size_bytes": (),
}
TASKAPI_SERIES = {
    "taskapi_logins_total": ("result",),
    "taskapi_tasks_completed_total": (),
    "taskapi_tasks_created_total": (),
    "taskapi_tasks_deleted_total": (),
    "taskapi_tasks_open": ("status",),
    "taskapi_users_registered_total": (),
}


def test_the_librarys_series_keep_their_names() -> None:
    assert {metric.series: metric.label_names for metric in BUILTIN} == BUILTIN_SERIES


def test_the_task_apis_series_keep_their_names() -> None:
    assert {metric.series: metric.label_names for metric in CATALOGUE.metrics} == TASKAPI_SERIES


def test_the_recorded_series_keep_their_names() -> None:
    assert sorted(RECORDED) == [
        "service:db_client_connection_utilization:ratio",
        "service:http_request_duration_seconds:p95_rate5m",
        "service:http_request_errors:ratio_rate5m",
        "service:http_requests:rate5m",
        "slo:bad_events:rate5m",
        "slo:error_budget_remaining:ratio",
        "slo:events:rate5m",
        "slo:objective:ratio",
        "slo:sli_error:ratio_rate1d",
        "slo:sli_error:ratio_rate1h",
        "slo:sli_error:ratio_rate2h",
        "slo:sli_error:ratio_rate30m",
        "slo:sli_error:ratio_rate3d",
        "slo:sli_error:ratio_rate5m",
        "slo:sli_error:ratio_rate6h",
    ]


def test_the_boards_keep_their_addresses() -> None:
    assert [board_uid("taskapi", board) for board in BOARDS] == [
        "taskapi-oncall",
        "taskapi-requests",
    ]
