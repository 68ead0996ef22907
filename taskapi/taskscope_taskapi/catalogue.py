"""What the task API declares: its business metrics and its objectives. Any service would write such a module."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Across, Catalogue, Kind, Label, Match, Metric, Objective, Window
from taskscope.catalogue.builtin import REQUEST_DURATION

__all__ = [
    "AVAILABILITY",
    "CATALOGUE",
    "LATENCY",
    "LOGINS",
    "TASKS_COMPLETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "TASKS_OPEN",
    "USERS_REGISTERED",
]

_OWNER: Final = "tasks"

TASKS_CREATED: Final = Metric(
    name="taskapi.tasks.created",
    kind=Kind.COUNTER,
    unit="{task}",
    help="Tasks that users created.",
    owner=_OWNER,
)
TASKS_COMPLETED: Final = Metric(
    name="taskapi.tasks.completed",
    kind=Kind.COUNTER,
    unit="{task}",
    help="Tasks that users set to done.",
    owner=_OWNER,
)
TASKS_DELETED: Final = Metric(
    name="taskapi.tasks.deleted",
    kind=Kind.COUNTER,
    unit="{task}",
    help="Tasks that users deleted.",
    owner=_OWNER,
)
TASKS_OPEN: Final = Metric(
    name="taskapi.tasks.open",
    kind=Kind.GAUGE,
    unit="{task}",
    help="Tasks that are not done, by status, over all users; every instance counts the same table.",
    owner=_OWNER,
    labels=(Label("status", values=("todo", "in_progress")),),
    across=Across.MAX,  # each worker counts the same table
)
USERS_REGISTERED: Final = Metric(
    name="taskapi.users.registered",
    kind=Kind.COUNTER,
    unit="{user}",
    help="Users who registered.",
    owner=_OWNER,
)
LOGINS: Final = Metric(
    name="taskapi.logins",
    kind=Kind.COUNTER,
    unit="{login}",
    help="Attempts to log in, by result.",
    owner=_OWNER,
    labels=(Label("result", values=("success", "bad_credentials", "rate_limited", "overloaded")),),
)

_MONTH: Final = Window(days=30)

AVAILABILITY: Final = Objective(
    name="availability",
    title="Requests without a server error",
    metric=REQUEST_DURATION,
    target=Decimal("0.999"),
    window=_MONTH,
    bad=Match(label="outcome", values=("server_error", "timeout")),
)
LATENCY: Final = Objective(
    name="latency",
    title="Requests under 300 ms",
    metric=REQUEST_DURATION,
    target=Decimal("0.99"),
    window=_MONTH,
    threshold=Decimal("0.3"),
)

CATALOGUE: Final = Catalogue(
    service="taskapi",
    metrics=(TASKS_CREATED, TASKS_COMPLETED, TASKS_DELETED, TASKS_OPEN, USERS_REGISTERED, LOGINS),
    objectives=(AVAILABILITY, LATENCY),
)
