"""Waiting in tests: for a condition to come true, within a time, and never for a time alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from time import monotonic, sleep
from typing import TypeVar, overload

__all__ = ["until", "until_async"]

T = TypeVar("T")


def until(
    condition: Callable[[], T], *, within_s: float = 5.0, saying: str = "", every_s: float = 0.01
) -> T:
    """The first true answer of `condition`. Raises AssertionError with its last answer when the time is over.

    within_s, every_s: seconds. saying: what is waited for, as the error tells it. It is asked at least once, and
    once more when the time is over, so a machine that stood still fails no test.
    """
    deadline = monotonic() + within_s
    while True:
        over = monotonic() >= deadline
        answer = condition()
        if answer:
            return answer
        if over:
            raise AssertionError(_late(answer, within_s, saying))
        sleep(every_s)


@overload
async def until_async(
    condition: Callable[[], Awaitable[T]],
    *,
    within_s: float = 5.0,
    saying: str = "",
    every_s: float = 0.01,
) -> T: ...
@overload
async def until_async(
    condition: Callable[[], T], *, within_s: float = 5.0, saying: str = "", every_s: float = 0.01
) -> T: ...
async def until_async(
    condition: Callable[[], T | Awaitable[T]],
    *,
    within_s: float = 5.0,
    saying: str = "",
    every_s: float = 0.01,
) -> T:
    """As `until`, while the event loop runs on; a condition may be a coroutine function."""
    deadline = monotonic() + within_s
    while True:
        over = monotonic() >= deadline
        found = condition()
        answer: T = await found if isawaitable(found) else found
        if answer:
            return answer
        if over:
            raise AssertionError(_late(answer, within_s, saying))
        await asyncio.sleep(every_s)


def _late(answer: object, within_s: float, saying: str) -> str:
    return f"{saying or 'it did not come true'}: not within {within_s:g} s; the last answer was {answer!r}"
