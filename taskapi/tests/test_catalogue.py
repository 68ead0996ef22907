"""The names by which the service is watched: to change one is to break boards and alerts."""

from __future__ import annotations

from decimal import Decimal

from taskscope_taskapi import CATALOGUE


def test_the_series_have_these_names() -> None:
    assert [metric.series for metric in CATALOGUE.metrics] == [
        "taskapi_tasks_created_total",
        "taskapi_tasks_completed_total",
        "taskapi_tasks_deleted_total",
        "taskapi_tasks_open",
        "taskapi_users_registered_total",
        "taskapi_logins_total",
    ]


def test_the_objectives_are_these() -> None:
    assert {(found.name, found.target, found.window.days) for found in CATALOGUE.objectives} == {
        ("availability", Decimal("0.999"), 30),
        ("latency", Decimal("0.99"), 30),
    }
