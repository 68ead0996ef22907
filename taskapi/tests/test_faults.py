"""Faults on demand: what an exercise asks for, and nothing else."""

from __future__ import annotations

import time

import pytest

from taskscope_taskapi.faults import PlannedFault, act

from .conftest import ApiMaker

pytestmark = pytest.mark.anyio

TASKS = "/api/v1/tasks"


async def test_an_error_is_a_bug_like_any_other(make_api: ApiMaker) -> None:
    async with make_api(faults=True) as api:
        answer = await api.http.get(TASKS, headers={"X-Taskapi-Fault": "error"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


async def test_a_slow_request_is_slow_and_then_served(make_api: ApiMaker) -> None:
    async with make_api(faults=True) as api:
        started = time.monotonic()
        answer = await api.http.get(TASKS, headers={"X-Taskapi-Fault": "slow=0.1"})
    assert time.monotonic() - started >= 0.1
    assert answer.status_code == 401


@pytest.mark.parametrize("asked", ["", "errors", "slow", "slow=", "slow=nan", "slow=-1", "x=1"])
async def test_what_is_no_fault_is_passed_by(asked: str) -> None:
    await act(asked)


async def test_a_fault_is_raised_in_the_handlers_place() -> None:
    with pytest.raises(PlannedFault):
        await act("error")
