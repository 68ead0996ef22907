"""Limits: exact, in bounded memory, by a clock that the test holds."""

from __future__ import annotations

import pytest

from taskscope_taskapi.limits import BoundedMemory, Limiter

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(clock: Clock, *, limit: int = 3, window_s: int = 60, most_keys: int = 100) -> Limiter:
    store = BoundedMemory(most_keys=most_keys, clock=clock)
    return Limiter(limit=limit, window_s=window_s, store=store)


async def test_the_limit_is_exact(clock: Clock) -> None:
    limit = limiter(clock)
    verdicts = [await limit.admit("a") for _ in range(5)]
    assert [verdict.admitted for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0, 0]


async def test_a_window_that_is_over_begins_anew(clock: Clock) -> None:
    limit = limiter(clock, limit=1)
    await limit.admit("a")
    clock.now += 59.5
    refused = await limit.admit("a")
    clock.now += 0.5
    assert (refused.admitted, refused.after_s) == (False, 1)
    assert (await limit.admit("a")).admitted


async def test_a_refused_client_is_told_when_to_come_again(clock: Clock) -> None:
    limit = limiter(clock, limit=1)
    await limit.admit("a")
    clock.now += 20
    assert (await limit.admit("a")).headers == {
        "RateLimit-Limit": "1",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "40",
        "Retry-After": "40",
    }


async def test_clients_are_counted_apart(clock: Clock) -> None:
    limit = limiter(clock, limit=1)
    await limit.admit("a")
    assert (await limit.admit("b")).admitted


async def test_a_forgotten_key_begins_anew(clock: Clock) -> None:
    limit = limiter(clock, limit=1)
    await limit.admit("a")
    await limit.forget("a")
    assert (await limit.admit("a")).admitted


async def test_a_million_clients_do_not_fill_the_memory(clock: Clock) -> None:
    store = BoundedMemory(most_keys=100, clock=clock)
    for number in range(10_000):
        await store.incr(f"key {number}", 60)
    assert await store.reset() == 100


async def test_the_oldest_window_is_forgotten_first(clock: Clock) -> None:
    store = BoundedMemory(most_keys=2, clock=clock)
    for key in ("a", "b", "c"):
        await store.incr(key, 60)
    assert [await store.get(key) for key in ("a", "b", "c")] == [0, 1, 1]
