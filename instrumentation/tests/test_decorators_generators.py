"""`timed` and `in_flight` over generators: one run from the first value asked for to the end, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.decorators import in_flight, timed
from taskscope.testing.metrics import isolated, value

WAIT = Metric(
    name="shop.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time in the queue.",
    owner="shop",
    labels=(Label("outcome", values=("ok", "error", "cancelled")),),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{job}", help="Jobs under way.", owner="shop")


class Measured:
    """Both measurements of one isolated shop, as one decorator."""

    def __init__(self) -> None:
        self.shop = isolated(WAIT, OPEN)
        self.at_once: list[float] = []

    def __call__(self, function: Any) -> Any:
        return in_flight(OPEN, instruments=self.shop)(timed(WAIT, instruments=self.shop)(function))

    def open(self) -> float:
        return value(self.shop.registry, OPEN)

    def note(self) -> None:
        self.at_once.append(self.open())

    def counts(self) -> dict[str, float]:
        """Of each outcome that there was, how often; nothing may be left open."""
        assert self.open() == 0
        outcomes = ("ok", "error", "cancelled")
        counts = {each: value(self.shop.registry, WAIT, outcome=each) for each in outcomes}
        return {outcome: count for outcome, count in counts.items() if count}

    def seconds(self) -> float:
        return value(self.shop.registry, WAIT, part="sum")


@pytest.fixture
def measured() -> Measured:
    return Measured()


def _numbers(measured: Measured) -> Callable[[], Iterator[int]]:
    @measured
    def numbers() -> Iterator[int]:
        got = 0
        for number in range(3):
            measured.note()
            got = (yield number + got) or 0

    return numbers  # type: ignore[no-any-return] # the decorator of this test is untyped


def test_a_generator_is_one_run_from_its_first_value_to_its_end(measured: Measured) -> None:
    numbers = _numbers(measured)()
    assert measured.open() == 0
    assert list(numbers) == [0, 1, 2]
    assert (measured.at_once, measured.counts()) == ([1, 1, 1], {"ok": 1})


def test_what_is_sent_into_a_generator_and_what_it_returns_come_through(
    measured: Measured,
) -> None:
    @measured
    def echo() -> Any:
        got = yield "ready"
        return f"got {got}"

    def outer() -> Any:
        return (yield from echo())

    running = outer()
    next(running)
    with pytest.raises(StopIteration, match="got it"):
        running.send("it")
    assert measured.counts() == {"ok": 1}


@pytest.mark.parametrize("close", [lambda running: running.close(), id], ids=["closed", "dropped"])
def test_a_generator_that_is_left_early_is_ok(
    measured: Measured, close: Callable[[Any], None]
) -> None:
    numbers = _numbers(measured)()
    next(numbers)
    close(numbers)
    del numbers
    assert measured.counts() == {"ok": 1}


def test_what_is_thrown_into_a_generator_is_an_error_unless_it_takes_it(
    measured: Measured,
) -> None:
    @measured
    def forgiving() -> Iterator[str]:
        try:
            yield "first"
        except ValueError:
            yield "forgiven"

    stubborn, forgiving_one = _numbers(measured)(), forgiving()
    next(stubborn)
    next(forgiving_one)
    with pytest.raises(ValueError, match="no"):
        stubborn.throw(ValueError("no"))  # type: ignore[attr-defined] # an Iterator by its annotation
    assert forgiving_one.throw(ValueError("no")) == "forgiven"
    assert list(forgiving_one) == []
    assert measured.counts() == {"ok": 1, "error": 1}


def test_a_generator_that_is_never_started_is_not_counted(measured: Measured) -> None:
    _numbers(measured)()
    assert measured.counts() == {}


def _ticks(measured: Measured) -> Callable[[], Any]:
    @measured
    async def ticks() -> AsyncIterator[int]:
        try:
            got = 0
            for number in range(3):
                await asyncio.sleep(0.005)
                measured.note()
                got = (yield number + got) or 0
        except ValueError:
            yield -1

    return ticks  # type: ignore[no-any-return] # the decorator of this test is untyped


def test_an_async_generator_is_one_run_from_its_first_value_to_its_end(
    measured: Measured,
) -> None:
    async def all_of_it() -> list[int]:
        return [number async for number in _ticks(measured)()]

    assert asyncio.run(all_of_it()) == [0, 1, 2]
    assert measured.seconds() > 0.014
    assert (measured.at_once, measured.counts()) == ([1, 1, 1], {"ok": 1})


def test_what_is_sent_and_thrown_into_an_async_generator_comes_through(
    measured: Measured,
) -> None:
    async def talk() -> list[int]:
        ticks = _ticks(measured)()
        said = [await anext(ticks), await ticks.asend(10), await ticks.athrow(ValueError("no"))]
        return [*said, *[number async for number in ticks]]

    assert asyncio.run(talk()) == [0, 11, -1]
    assert measured.counts() == {"ok": 1}


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "dropped"])
def test_an_async_generator_that_is_left_early_is_ok_and_cleans_up(
    measured: Measured, closes: bool
) -> None:
    ended = asyncio.Event()

    @measured
    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.set()

    async def leave() -> None:
        running = ticks()
        async with aclosing(running) if closes else asyncio.timeout(5):
            assert await anext(running) == 1
            del running
        await ended.wait()
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert measured.counts() == {"ok": 1}


def test_an_async_generator_whose_consumer_is_cancelled_within_it_is_cancelled(
    measured: Measured,
) -> None:
    @measured
    async def ticks() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in ticks():
            pass

    async def cancel() -> None:
        task = asyncio.create_task(consume())
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert measured.counts() == {"cancelled": 1}


def test_an_async_generator_that_fails_is_an_error(measured: Measured) -> None:
    @measured
    async def ticks() -> AsyncIterator[int]:
        yield 1
        raise KeyError("no")

    async def consume() -> None:
        async for _ in ticks():
            pass

    with pytest.raises(KeyError):
        asyncio.run(consume())
    assert measured.counts() == {"error": 1}
