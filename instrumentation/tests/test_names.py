"""Every public name as a literal: a renamed series breaks boards, rules and habits, so it must be meant."""

from __future__ import annotations

from taskscope.catalogue.builtin import BUILTIN
from taskscope.catalogue.groups import GROUPS
from taskscope.catalogue.links import BOARDS, board_uid
from taskscope.catalogue.promql import RECORDED
from taskscope_taskapi.catalogue import CATALOGUE

BUILTIN_SERIES = {
    "asyncio_event_loop_lag_seconds": (),
    "cpython_gc_pause_seconds": ("cpython_gc_generation",),
    "db_client_connection_count": ("db_client_connection_state",),
    "db_client_connection_max": (),
    "db_client_connection_pending_requests": (),
    "db_client_connection_timeouts_total": (),
    "db_client_connection_wait_time_seconds": (),
    "db_client_operation_duration_seconds": ("db_operation_name", "role", "shard", "outcome"),
    "http_server_active_requests": (),
    "http_server_background_task_duration_seconds": ("http_route", "outcome"),
    "http_server_request_duration_seconds": (
        "http_request_method",
        "http_route",
        "http_response_status_code",
        "outcome",
    ),
    "http_server_response_body_size_bytes": ("http_request_method", "http_route"),
    "http_server_response_time_to_first_byte_seconds": ("http_request_method", "http_route"),
    "process_cpu_seconds_total": (),
    "process_max_fds": (),
    "process_open_fds": (),
    "process_resident_memory_bytes": (),
    "process_start_time_seconds": (),
    "process_thread_count": (),
    "taskscope_audit_failed_total": ("reason",),
    "taskscope_audit_lines_total": ("event_outcome",),
    "taskscope_build_info": (
        "service_version",
        "taskscope_version",
        "vcs_ref_head_revision",
        "process_runtime_version",
    ),
    "taskscope_collector_connected": (),
    "taskscope_collector_look_duration_seconds": (),
    "taskscope_collector_requests_total": (),
    "taskscope_collector_uncounted": (),
    "taskscope_library_errors_total": ("component", "error_type"),
    "taskscope_library_time_seconds_total": (),
    "taskscope_logs_batch_duration_seconds": (),
    "taskscope_logs_dead_letters_total": ("error_type",),
    "taskscope_logs_discarded_total": (),
    "taskscope_logs_dropped_total": ("reason", "log_level"),
    "taskscope_logs_duplicates_total": (),
    "taskscope_logs_errors_total": ("error_type", "http_route"),
    "taskscope_logs_in_doubt_total": ("result",),
    "taskscope_logs_left_out_total": ("reason", "log_level"),
    "taskscope_logs_lines_total": ("log_level",),
    "taskscope_logs_oldest_line_age_seconds": (),
    "taskscope_logs_retries_total": ("reason",),
    "taskscope_logs_shipped_total": (),
    "taskscope_logs_stored_total": ("log_level", "event_dataset"),
    "taskscope_metrics_overflowed_total": ("metric", "label"),
    "taskscope_metrics_series": (),
    "taskscope_multiprocess_files_skipped_total": ("reason",),
    "taskscope_multiprocess_workers": (),
    "taskscope_scrape_duration_seconds": (),
    "taskscope_scrape_size_bytes": (),
    "taskscope_shipper_connected": (),
    "taskscope_spool_limit_bytes": (),
    "taskscope_spool_size_bytes": (),
    "taskscope_tracing_requests_total": ("decision",),
}
GROUP_SERIES = {
    "browser_beacon_refused_total": ("reason",),
    "browser_errors_total": ("http_route",),
    "browser_web_vital_duration_seconds": ("http_route", "vital"),
    "browser_web_vital_layout_shift": ("http_route",),
    "cache_operation_duration_seconds": ("cache_name", "operation"),
    "cache_requests_total": ("cache_name", "ttl_class", "result"),
    "http_client_request_duration_seconds": (
        "http_request_method",
        "server_address",
        "http_response_status_code",
        "outcome",
    ),
    "http_server_stream_duration_seconds": ("http_route", "protocol", "close"),
    "http_server_stream_io_bytes_total": ("http_route", "protocol", "direction"),
    "http_server_stream_messages_total": ("http_route", "protocol", "direction"),
    "http_server_stream_open": ("http_route", "protocol"),
    "messaging_client_consumed_messages_total": ("messaging_destination_name", "redelivered"),
    "messaging_client_operation_duration_seconds": ("messaging_destination_name",),
    "messaging_client_sent_messages_total": ("messaging_destination_name", "outcome"),
    "messaging_client_settled_messages_total": ("messaging_destination_name", "result"),
    "messaging_message_age_seconds": ("messaging_destination_name",),
    "messaging_process_duration_seconds": ("messaging_destination_name", "outcome"),
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


def test_the_groups_series_keep_their_names() -> None:
    assert {metric.series: metric.label_names for metric in GROUPS} == GROUP_SERIES


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
        "taskapi-runtime",
        "taskapi-logs",
    ]
