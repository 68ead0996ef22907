"""Faults on demand, for exercises. Imported only where the settings ask for them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import Header

__all__ = ["HEADER", "PlannedFault", "act"]

HEADER: Final = "X-Taskapi-Fault"
_LONGEST_S: Final = 30.0


class PlannedFault(Exception):  # noqa: N818 # it stands for any bug
    """What a handler raises when an exercise asks for a bug."""


async def act(x_taskapi_fault: Annotated[str, Header(max_length=32)] = "") -> None:
    """Waits for `slow=SECONDS`, raises PlannedFault for `error`, and passes by anything else."""
    verb, _, amount = x_taskapi_fault.partition("=")
    if verb == "slow":
        await asyncio.sleep(_seconds(amount))
    if verb == "error":
        raise PlannedFault("a fault was asked for")


def _seconds(text: str) -> float:
    try:
        return min(_LONGEST_S, max(0.0, float(text)))
    except ValueError:
        return 0.0
