"""The plan: the same for the same seed, and of everything something."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from taskscope_taskapi.plan import Action, Step, plan


def beginning(seed: int, count: int = 500) -> list[Step]:
    return list(islice(plan(seed, users=4), count))


def test_one_seed_is_one_plan() -> None:
    assert beginning(7) == beginning(7)


def test_another_seed_is_another_plan() -> None:
    assert beginning(7) != beginning(8)


def test_the_plan_is_this_one() -> None:
    assert [(step.user, step.action.value) for step in beginning(7, 5)] == [
        (2, "me"),
        (0, "list"),
        (3, "list_by_status"),
        (0, "me"),
        (3, "create"),
    ]


def test_everything_is_done_by_everybody() -> None:
    steps = beginning(7, 2000)
    assert {step.action for step in steps} == set(Action)
    assert {step.user for step in steps} == {0, 1, 2, 3}


def test_more_is_created_than_deleted_and_logins_are_rare() -> None:
    counts = Counter(step.action for step in beginning(7, 2000))
    assert counts[Action.CREATE] > counts[Action.DELETE]
    assert counts[Action.LOGIN] + counts[Action.WRONG_LOGIN] < 100
