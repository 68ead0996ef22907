"""What the load generator will do, as a pure function of its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["Action", "Step", "plan"]


class Action(Enum):
    """One thing that a user does."""

    CREATE = "create"
    LIST = "list"
    LIST_BY_STATUS = "list_by_status"
    READ = "read"
    START = "start"
    COMPLETE = "complete"
    DELETE = "delete"
    STATISTICS = "statistics"
    ME = "me"
    LOGIN = "login"
    WRONG_LOGIN = "wrong_login"


_WEIGHTS = {
    Action.CREATE: 24,
    Action.LIST: 18,
    Action.LIST_BY_STATUS: 8,
    Action.READ: 16,
    Action.START: 8,
    Action.COMPLETE: 10,
    Action.DELETE: 5,
    Action.STATISTICS: 5,
    Action.ME: 4,
    Action.LOGIN: 2,
    Action.WRONG_LOGIN: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """user: index of who acts. pick, error_draw, slow_draw: 0 to 1.

    pick: which of the user's tasks. error_draw, slow_draw: a fault is asked for when its share is greater.
    """

    user: int
    action: Action
    pick: float
    error_draw: float
    slow_draw: float


def plan(seed: int, *, users: int) -> Iterator[Step]:
    """Endless steps, the same for the same seed and number of users."""
    draw = random.Random(seed)  # noqa: S311 # a plan, no secret
    actions, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while True:
        yield Step(
            user=draw.randrange(users),
            action=draw.choices(actions, weights)[0],
            pick=draw.random(),
            error_draw=draw.random(),
            slow_draw=draw.random(),
        )
