"""Tasks: the owner's alone, counted exactly, changed by who knows the version."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskscope.testing.metrics import moved
from taskscope_taskapi.catalogue import TASKS_COMPLETED, TASKS_CREATED, TASKS_DELETED

from .conftest import Api

pytestmark = pytest.mark.anyio

TASKS = "/api/v1/tasks"


async def made(api: Api, user: dict[str, str], **fields: Any) -> str:
    """The path of a new task."""
    answer = await api.http.post(TASKS, headers=user, json={"title": "buy bread", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


async def test_a_task_is_created_and_found_where_it_was_said_to_be(api: Api) -> None:
    ann = await api.user("ann")
    with moved(api.registry, TASKS_CREATED, by=1):
        path = await made(api, ann)
    task = (await api.http.get(path, headers=ann)).json()["data"]
    assert (task["title"], task["status"], task["completed_at"]) == ("buy bread", "todo", None)


async def test_a_change_keeps_what_it_does_not_name(api: Api) -> None:
    ann = await api.user("ann")
    path = await made(api, ann, description="rye")
    task = (await api.http.patch(path, headers=ann, json={"title": "buy rolls"})).json()["data"]
    assert (task["title"], task["description"], task["status"]) == ("buy rolls", "rye", "todo")


@pytest.mark.parametrize("nothing", [{}, {"title": "buy bread"}, {"status": "todo"}])
async def test_a_change_that_changes_nothing_keeps_the_version(
    api: Api, nothing: dict[str, str]
) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    before = await api.http.get(path, headers=ann)
    after = await api.http.patch(path, headers=ann, json=nothing)
    assert (after.status_code, after.headers["etag"]) == (200, before.headers["etag"])


async def test_a_task_is_completed_once_each_time_it_becomes_done(api: Api) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    with moved(api.registry, TASKS_COMPLETED, by=1):
        done = await api.http.patch(path, headers=ann, json={"status": "done"})
        await api.http.patch(path, headers=ann, json={"status": "done"})
        await api.http.patch(path, headers=ann, json={"title": "bread was bought"})
    assert done.json()["data"]["completed_at"] is not None
    reopened = await api.http.patch(path, headers=ann, json={"status": "in_progress"})
    assert reopened.json()["data"]["completed_at"] is None


async def test_of_many_who_complete_a_task_at_once_one_is_counted(api: Api) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    with moved(api.registry, TASKS_COMPLETED, by=1):
        answers = await asyncio.gather(
            *(api.http.patch(path, headers=ann, json={"status": "done"}) for _ in range(8))
        )
    assert {answer.status_code for answer in answers} == {200}


async def test_a_task_may_be_done_from_the_start(api: Api) -> None:
    ann = await api.user("ann")
    with moved(api.registry, TASKS_COMPLETED, by=1):
        await made(api, ann, status="done")


async def test_a_deleted_task_is_gone(api: Api) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    with moved(api.registry, TASKS_DELETED, by=1):
        first = await api.http.delete(path, headers=ann)
        second = await api.http.delete(path, headers=ann)
    assert (first.status_code, first.content, second.status_code) == (204, b"", 404)


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("PATCH", {"title": "mine now"}), ("DELETE", None)]
)
async def test_anothers_task_is_as_absent_as_one_that_never_was(
    api: Api, method: str, body: dict[str, str] | None
) -> None:
    ann, bob = await api.user("ann"), await api.user("bob")
    path = await made(api, ann)
    never = f"{TASKS}/00000000-0000-4000-8000-000000000000"
    others = await api.http.request(method, path, headers=bob, json=body)
    absent = await api.http.request(method, never, headers=bob, json=body)
    assert others.status_code == absent.status_code == 404
    assert others.json()["error"] == absent.json()["error"]
    assert (await api.http.get(path, headers=ann)).json()["data"]["title"] == "buy bread"


async def test_two_users_see_their_own_tasks_only(api: Api) -> None:
    ann, bob = await api.user("ann"), await api.user("bob")
    await made(api, ann, title="ann's")
    await made(api, bob, title="bob's", status="done")
    for user, title, done in ((ann, "ann's", 0), (bob, "bob's", 1)):
        listed = (await api.http.get(TASKS, headers=user)).json()
        numbers = (await api.http.get(f"{TASKS}/statistics", headers=user)).json()["data"]
        assert [task["title"] for task in listed["data"]] == [title]
        assert (listed["meta"]["pagination"]["total"], numbers["total"]) == (1, 1)
        assert numbers["by_status"]["done"] == done


@pytest.mark.parametrize(
    "foreign", [{"owner_id": "x"}, {"id": "x"}, {"version": 9}, {"completed_at": "2020-01-01"}]
)
async def test_a_field_that_is_not_the_callers_to_set_is_refused(
    api: Api, foreign: dict[str, object]
) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    created = await api.http.post(TASKS, headers=ann, json={"title": "t", **foreign})
    changed = await api.http.patch(path, headers=ann, json=foreign)
    assert (created.status_code, changed.status_code) == (422, 422)


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "\x00\x1b"},
        {"title": "x" * 201},
        {"title": None},
        {"status": "finished"},
        {"description": None},
        {"description": "x" * 4001},
    ],
    ids=str,
)
async def test_a_task_that_is_not_as_it_must_be_is_refused(
    api: Api, wrong: dict[str, object]
) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    created = await api.http.post(TASKS, headers=ann, json={"title": "t", **wrong})
    changed = await api.http.patch(path, headers=ann, json=wrong)
    assert (created.status_code, changed.status_code) == (422, 422)


async def test_control_characters_do_not_reach_the_table(api: Api) -> None:
    ann = await api.user("ann")
    path = await made(api, ann, title="a\x00b\x1b[31m\nc\x9b", description="one\r\ntwo\x07")
    task = (await api.http.get(path, headers=ann)).json()["data"]
    assert (task["title"], task["description"]) == ("ab[31m c", "one\ntwo")


async def test_a_list_is_given_in_parts_newest_first(api: Api) -> None:
    ann = await api.user("ann")
    for number in range(5):
        await made(api, ann, title=f"task {number}")
    part = (await api.http.get(f"{TASKS}?limit=2&offset=1", headers=ann)).json()
    assert [task["title"] for task in part["data"]] == ["task 3", "task 2"]
    assert part["meta"]["pagination"] == {"limit": 2, "offset": 1, "total": 5}


async def test_a_list_is_filtered_by_status(api: Api) -> None:
    ann = await api.user("ann")
    await made(api, ann)
    await made(api, ann, status="in_progress")
    listed = (await api.http.get(f"{TASKS}?status=in_progress", headers=ann)).json()
    assert [task["status"] for task in listed["data"]] == ["in_progress"]
    assert listed["meta"]["pagination"]["total"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "offset=-1",
        f"offset={'9' * 400}",
        "limit=ten",
        "status=done'--",
        "owner_id=1",
    ],
)
async def test_a_question_that_is_not_as_it_must_be_is_refused(api: Api, query: str) -> None:
    ann = await api.user("ann")
    assert (await api.http.get(f"{TASKS}?{query}", headers=ann)).status_code == 422


async def test_statistics_are_a_path_of_their_own(api: Api) -> None:
    ann = await api.user("ann")
    for status in ("todo", "done", "done", "in_progress"):
        await made(api, ann, status=status)
    numbers = (await api.http.get(f"{TASKS}/statistics", headers=ann)).json()["data"]
    assert numbers == {
        "total": 4,
        "by_status": {"todo": 1, "in_progress": 1, "done": 2},
        "completion_ratio": 0.5,
    }


async def test_statistics_without_tasks_divide_by_nothing(api: Api) -> None:
    ann = await api.user("ann")
    numbers = (await api.http.get(f"{TASKS}/statistics", headers=ann)).json()["data"]
    assert (numbers["total"], numbers["completion_ratio"]) == (0, 0.0)


@pytest.mark.parametrize("path", ["", "/statistics", "/{id}"])
async def test_what_the_caller_holds_is_not_sent_again(api: Api, path: str) -> None:
    ann = await api.user("ann")
    task = await made(api, ann)
    url = task if path == "/{id}" else TASKS + path
    tag = (await api.http.get(url, headers=ann)).headers["etag"]
    held = await api.http.get(url, headers={**ann, "If-None-Match": f'"other", W/{tag}'})
    await api.http.patch(task, headers=ann, json={"status": "done"})
    changed = await api.http.get(url, headers={**ann, "If-None-Match": tag})
    assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", tag)
    assert changed.status_code == 200


@pytest.mark.parametrize(("method", "status"), [("PATCH", 200), ("DELETE", 204)])
async def test_who_changes_a_version_that_is_gone_is_stopped(
    api: Api, method: str, status: int
) -> None:
    ann = await api.user("ann")
    path = await made(api, ann)
    old = (await api.http.get(path, headers=ann)).headers["etag"]
    new = (await api.http.patch(path, headers=ann, json={"title": "two"})).headers["etag"]
    body = {"title": "three"} if method == "PATCH" else None
    stale = await api.http.request(method, path, headers={**ann, "If-Match": old}, json=body)
    fresh = await api.http.request(method, path, headers={**ann, "If-Match": new}, json=body)
    assert (stale.status_code, fresh.status_code) == (412, status)


async def test_an_id_that_is_none_is_refused(api: Api) -> None:
    ann = await api.user("ann")
    assert (await api.http.get(f"{TASKS}/1%20OR%201=1", headers=ann)).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", TASKS),
        ("POST", TASKS),
        ("GET", f"{TASKS}/statistics"),
        ("GET", f"{TASKS}/00000000-0000-4000-8000-000000000000"),
        ("PATCH", f"{TASKS}/00000000-0000-4000-8000-000000000000"),
        ("DELETE", f"{TASKS}/00000000-0000-4000-8000-000000000000"),
    ],
)
async def test_nothing_is_done_for_a_stranger(api: Api, method: str, path: str) -> None:
    body = {"title": "t"} if method in ("POST", "PATCH") else None
    assert (await api.http.request(method, path, json=body)).status_code == 401
