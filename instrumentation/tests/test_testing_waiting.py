"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio

import pytest

from taskscope.testing.waiting import until, until_async


def test_the_first_true_answer_is_given_back() -> None:
    answers = iter(["", 0, "ready"])
    assert until(lambda: next(answers), every_s=0) == "ready"


def test_what_never_comes_true_is_told_with_its_last_answer() -> None:
    with pytest.raises(
        AssertionError, match=r"the spool is empty: not within 0.01 s; the last answer was \[7\]"
    ):
        until(
            lambda: [] or _Unready([7]), within_s=0.01, saying="the spool is empty", every_s=0.001
        )


def test_what_is_true_at_once_needs_no_time() -> None:
    assert until(lambda: True, within_s=0)


def test_what_came_true_while_the_machine_stood_still_is_found() -> None:
    answers = iter([False, True])
    assert until(lambda: next(answers), within_s=0.001, every_s=0.01)


def test_the_event_loop_runs_on_while_waiting() -> None:
    async def wait() -> bool:
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, done.set)
        return await until_async(done.is_set)

    assert asyncio.run(wait())


def test_what_never_comes_true_in_a_loop_is_told_too() -> None:
    with pytest.raises(AssertionError, match=r"it did not come true: not within 0\.01 s"):
        asyncio.run(until_async(lambda: False, within_s=0.01))


def test_a_condition_may_ask_over_the_loop_itself() -> None:
    answers = iter(["", "ready"])

    async def asked() -> str:
        await asyncio.sleep(0)
        return next(answers)

    assert asyncio.run(until_async(asked, every_s=0)) == "ready"


class _Unready(list[int]):
    def __bool__(self) -> bool:
        return False
