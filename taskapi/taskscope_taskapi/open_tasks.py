"""The gauge of open tasks, counted from the table so that it is right after a restart and in every instance."""

from __future__ import annotations

import asyncio

from sqlalchemy import func, select

import taskscope
from taskscope_taskapi.database import Database, DatabaseUnavailable
from taskscope_taskapi.models import Task, TaskStatus
from taskscope_taskapi.service import Gauge

__all__ = ["count_open_tasks", "keep_counting"]

_OPEN = (TaskStatus.TODO, TaskStatus.IN_PROGRESS)
_log = taskscope.get_logger(__name__)


async def count_open_tasks(database: Database, gauge: Gauge) -> None:
    """The gauge stands at the number of open tasks of each status. Raises DatabaseUnavailable."""
    async with database.reading() as session:
        rows = await session.execute(
            select(Task.status, func.count())
            .where(Task.status.in_([status.value for status in _OPEN]))
            .group_by(Task.status)
        )
        counts = {row[0]: row[1] for row in rows}
    for status in _OPEN:
        gauge.set(counts.get(status.value, 0), status=status.value)


async def keep_counting(database: Database, gauge: Gauge, *, every_s: float) -> None:
    """Counts again and again until cancelled; a failure is logged once until it has passed."""
    failing = False
    while True:
        try:
            await count_open_tasks(database, gauge)
        except DatabaseUnavailable as error:
            if not failing:
                _log.warning("open tasks not counted", reason=str(error))
            failing = True
        except Exception:  # noqa: BLE001 # a gauge that stands still must not end the service
            if not failing:
                _log.exception("open tasks not counted")
            failing = True
        else:
            failing = False
        await asyncio.sleep(every_s)
