"""`timed`, `counted` and `in_flight` over functions, coroutines and methods, with whatever end they have."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import prometheus_client
import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.decorators import counted, in_flight, timed
from taskscope.errors import MetricError
from taskscope.testing.metrics import isolated, value

OUTCOME = Label("outcome", values=("ok", "error", "cancelled"))
QUEUE = Label("queue", values=("mail", "print"))
WAIT = Metric(
    name="shop.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time in the queue.",
    owner="shop",
    labels=(OUTCOME,),
)
JOBS = Metric(
    name="shop.jobs",
    kind=Kind.COUNTER,
    unit="{job}",
    help="Jobs that ended.",
    owner="shop",
    labels=(QUEUE, OUTCOME),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{job}", help="Jobs under way.", owner="shop")

Counts = dict[str, float]


class Measured:
    """The three measurements of one isolated shop, as one decorator."""

    def __init__(self) -> None:
        self.shop = isolated(WAIT, JOBS, OPEN)
        self.at_once: list[float] = []

    def __call__(self, function: Any) -> Any:
        for decorate in (
            timed(WAIT, instruments=self.shop),
            counted(JOBS, queue="mail", instruments=self.shop),
            in_flight(OPEN, instruments=self.shop),
        ):
            function = decorate(function)
        return function

    def open(self) -> float:
        return value(self.shop.registry, OPEN)

    def note(self) -> None:
        self.at_once.append(self.open())

    def counts(self) -> Counts:
        """Of each outcome that there was, how often; the two metrics must agree and nothing be left open."""
        outcomes = ("ok", "error", "cancelled")
        times = {o: value(self.shop.registry, WAIT, outcome=o) for o in outcomes}
        counts = {o: value(self.shop.registry, JOBS, queue="mail", outcome=o) for o in outcomes}
        assert times == counts
        assert self.open() == 0
        return {outcome: count for outcome, count in counts.items() if count}

    def seconds(self) -> float:
        return value(self.shop.registry, WAIT, part="sum")


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_a_function_is_measured_and_gives_what_it_gave(measured: Measured) -> None:
    @measured
    def double(number: int) -> int:
        measured.note()
        return 2 * number

    assert (double(4), measured.at_once, measured.counts()) == (8, [1], {"ok": 1})


def test_a_function_that_fails_is_an_error_and_fails_all_the_same(measured: Measured) -> None:
    @measured
    def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        fail()
    assert measured.counts() == {"error": 1}


def test_a_coroutine_is_measured_until_it_ends_and_not_until_it_is_made(
    measured: Measured,
) -> None:
    @measured
    async def rest() -> str:
        await asyncio.sleep(0.03)
        measured.note()
        return "rested"

    assert asyncio.run(rest()) == "rested"
    assert measured.at_once == [1]
    assert measured.seconds() > 0.029
    assert measured.counts() == {"ok": 1}


def test_prometheus_clients_decorators_measure_the_making_of_a_coroutine_and_ours_its_run(
    measured: Measured,
) -> None:
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("wait", "Time.", registry=registry)

    async def rest() -> None:
        await asyncio.sleep(0.03)

    async def both() -> None:
        await theirs.time()(rest)()
        await measured(rest)()

    asyncio.run(both())
    assert (registry.get_sample_value("wait_sum") or 0) < 0.01
    assert measured.seconds() > 0.029


def test_a_cancelled_coroutine_is_cancelled_and_stays_so(measured: Measured) -> None:
    @measured
    async def wait() -> None:
        await asyncio.Event().wait()

    async def cancel() -> bool:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert measured.open() == 1
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancel())
    assert measured.counts() == {"cancelled": 1}


def test_a_coroutine_that_times_out_is_cancelled_within_and_an_error_without(
    measured: Measured,
) -> None:
    @measured
    async def within() -> None:
        await asyncio.Event().wait()

    @measured
    async def without() -> None:
        async with asyncio.timeout(0.01):
            await within()

    with pytest.raises(TimeoutError):
        asyncio.run(without())
    assert measured.counts() == {"cancelled": 1, "error": 1}


def test_a_coroutine_that_is_thrown_away_is_cancelled(measured: Measured) -> None:
    @measured
    async def wait() -> None:
        await asyncio.sleep(0)

    coroutine = wait()
    coroutine.send(None)
    coroutine.close()
    assert measured.counts() == {"cancelled": 1}


def test_a_coroutine_that_is_never_started_is_not_counted(measured: Measured) -> None:
    @measured
    async def never() -> None: ...

    never().close()
    assert measured.counts() == {}


def test_methods_are_measured_whichever_decorator_stands_first(measured: Measured) -> None:
    class Shop:
        @measured
        def plain(self) -> str:
            return type(self).__name__

        @classmethod
        @measured
        def outside(cls) -> str:
            return cls.__name__

        @measured
        @classmethod
        def inside(cls) -> str:
            return cls.__name__

        @measured
        @staticmethod
        def still() -> str:
            return "Shop"

    shop = Shop()
    assert {shop.plain(), shop.outside(), Shop.inside(), Shop.still()} == {"Shop"}
    assert measured.counts() == {"ok": 4}


def test_partials_and_objects_that_are_called_keep_their_shape(measured: Measured) -> None:
    class Called:
        async def __call__(self, number: int) -> int:
            await asyncio.sleep(0)
            return number

    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    three, seven = measured(partial(add, 1)), measured(Called())
    assert inspect.iscoroutinefunction(three)
    assert inspect.iscoroutinefunction(seven)
    assert (asyncio.run(three(2)), asyncio.run(seven(7))) == (3, 7)
    assert measured.counts() == {"ok": 2}


def test_a_plain_decorator_between_hides_no_coroutine(measured: Measured) -> None:
    def careless(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    @measured
    @careless
    async def rest() -> None:
        await asyncio.sleep(0.02)

    asyncio.run(rest())
    assert measured.seconds() > 0.019
    assert measured.counts() == {"ok": 1}


def test_a_context_manager_made_of_a_measured_generator_is_measured_over_its_block(
    measured: Measured,
) -> None:
    @contextmanager
    @measured
    def lock() -> Iterator[None]:
        yield

    with pytest.raises(KeyError), lock():
        raise KeyError("no")
    assert measured.counts() == {"error": 1}


def test_what_inspect_says_of_a_function_stays_true(measured: Measured) -> None:
    async def wait(seconds: float = 1) -> None:
        """Waits."""

    async def tick() -> AsyncIterator[int]:
        yield 1

    def count() -> Iterator[int]:
        yield 1

    assert inspect.iscoroutinefunction(measured(wait))
    assert inspect.isasyncgenfunction(measured(tick))
    assert inspect.isgeneratorfunction(measured(count))
    again = measured(wait)
    assert (again.__name__, again.__doc__, again.__module__) == ("wait", "Waits.", __name__)
    assert list(inspect.signature(again).parameters) == ["seconds"]
    assert inspect.unwrap(again) is wait


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(MetricError, match="decorate a function or a method"):
        timed(WAIT)(Measured)
    with pytest.raises(MetricError, match="decorate a function or a method"):
        timed(WAIT)(7)  # type: ignore[type-var] # that is the fault
