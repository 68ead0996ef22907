"""A user's tasks. The owner is part of every statement: another's task is as absent as one that never was."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

import taskscope
from taskscope_taskapi.envelope import Envelope, answer, entity_tag, named_in, read
from taskscope_taskapi.models import Task, TaskStatus, now
from taskscope_taskapi.problems import Problem
from taskscope_taskapi.schemas import Page, Statistics, TaskChange, TaskDraft, TaskQuery, TaskView
from taskscope_taskapi.service import Running, StrictRoute, UserId

__all__ = ["router"]

router = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)
_log = taskscope.get_logger(__name__)


@router.post("", status_code=HTTPStatus.CREATED, response_model=Envelope[TaskView])
async def create(draft: TaskDraft, user_id: UserId, service: Running) -> Response:
    """A task exists."""
    task = Task(owner_id=user_id, **draft.model_dump(mode="json"))
    if draft.status is TaskStatus.DONE:
        task.completed_at = now()
    async with service.database.writing() as session:
        session.add(task)
    service.business.tasks_created.inc()
    if task.completed_at is not None:
        service.business.tasks_completed.inc()
    _log.info("task created", task_id=str(task.id))
    return answer(
        TaskView.model_validate(task),
        status=HTTPStatus.CREATED,
        headers={"Location": f"/api/v1/tasks/{task.id}", "ETag": _tag(task)},
    )


@router.get("", response_model=Envelope[list[TaskView]])
async def list_tasks(
    request: Request, query: Annotated[TaskQuery, Query()], user_id: UserId, service: Running
) -> Response:
    """A part of the caller's tasks, newest first, and how many there are in all."""
    wanted: ColumnElement[bool] = Task.owner_id == user_id
    if query.status is not None:
        wanted = wanted & (Task.status == query.status.value)
    async with service.database.reading() as session:
        total = await session.scalar(select(func.count()).select_from(Task).where(wanted))
        tasks = await session.scalars(
            select(Task)
            .where(wanted)
            .order_by(Task.created_at.desc(), Task.id)
            .limit(query.limit)
            .offset(query.offset)
        )
        views = [TaskView.model_validate(task) for task in tasks]
    page = Page(limit=query.limit, offset=query.offset, total=total or 0)
    return read(request, views, tag=entity_tag(page, *views), page=page)


@router.get("/statistics", response_model=Envelope[Statistics])
async def statistics(request: Request, user_id: UserId, service: Running) -> Response:
    """The caller's tasks in numbers."""
    async with service.database.reading() as session:
        rows = await session.execute(
            select(Task.status, func.count()).where(Task.owner_id == user_id).group_by(Task.status)
        )
        counts = {TaskStatus(status): count for status, count in rows}
    by_status = {status: counts.get(status, 0) for status in TaskStatus}
    total = sum(by_status.values())
    view = Statistics(
        total=total,
        by_status=by_status,
        completion_ratio=by_status[TaskStatus.DONE] / total if total else 0.0,
    )
    return read(request, view, tag=entity_tag(view))


@router.get("/{task_id}", response_model=Envelope[TaskView])
async def get(request: Request, task_id: UUID, user_id: UserId, service: Running) -> Response:
    """One of the caller's tasks."""
    async with service.database.reading() as session:
        task = await _own(session, task_id, user_id)
    return read(request, TaskView.model_validate(task), tag=_tag(task))


@router.patch("/{task_id}", response_model=Envelope[TaskView])
async def change(
    request: Request, task_id: UUID, changes: TaskChange, user_id: UserId, service: Running
) -> Response:
    """The task with what was given changed; 412 when If-Match names another version of it."""
    async with service.database.writing() as session:
        before = await _own(session, task_id, user_id, locked=True)
        _match(request, before)
        values = _values(before, changes)
        if not values:
            return _changed(before)
        updated = await session.execute(
            update(Task)
            .where(Task.id == task_id, Task.owner_id == user_id, Task.version == before.version)
            .values(**values)
            .returning(Task)
            .execution_options(populate_existing=True, synchronize_session=False)
        )
        completed = values.get("completed_at") is not None
        task = updated.scalar_one_or_none()
        if task is None:
            raise Problem(HTTPStatus.CONFLICT, "The task changed meanwhile; read it again.")
    if completed:
        service.business.tasks_completed.inc()
    return _changed(task)


@router.delete("/{task_id}", status_code=HTTPStatus.NO_CONTENT)
async def remove(request: Request, task_id: UUID, user_id: UserId, service: Running) -> Response:
    """The task is gone; 412 when If-Match names another version of it."""
    async with service.database.writing() as session:
        task = await _own(session, task_id, user_id, locked=True)
        _match(request, task)
        await session.execute(delete(Task).where(Task.id == task_id, Task.owner_id == user_id))
    service.business.tasks_deleted.inc()
    service.audit.record("task.deleted", target=str(task_id))
    _log.info("task deleted", task_id=str(task_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def _own(
    session: AsyncSession, task_id: UUID, user_id: UUID, *, locked: bool = False
) -> Task:
    """A locked row waits for whoever changes it; SQLite has locked the whole file already."""
    query = select(Task).where(Task.id == task_id, Task.owner_id == user_id)
    task = await session.scalar(query.with_for_update() if locked else query)
    if task is None:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no such task.")
    return task


def _values(before: Task, changes: TaskChange) -> Mapping[str, object]:
    """The columns that change; empty when nothing does. A task is completed once each time it becomes done."""
    given = changes.model_dump(mode="json", exclude_unset=True)
    values: dict[str, object] = {
        name: value for name, value in given.items() if getattr(before, name) != value
    }
    if not values:
        return {}
    if "status" in values:
        done = values["status"] == TaskStatus.DONE.value
        values["completed_at"] = now() if done else None
    return {**values, "updated_at": now(), "version": before.version + 1}


def _match(request: Request, task: Task) -> None:
    wanted = request.headers.get("if-match")
    if wanted is not None and not named_in(wanted, _tag(task)):
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "The task is not the version you know.")


def _changed(task: Task) -> Response:
    return answer(TaskView.model_validate(task), headers={"ETag": _tag(task)})


def _tag(task: Task) -> str:
    return entity_tag(task.id, task.version)
