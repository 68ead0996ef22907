"""`timed` and `in_flight` as context managers: nested, shared by tasks and threads, kept by an ExitStack."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from threading import Barrier, Thread

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


def test_a_block_is_measured_by_with_and_by_async_with() -> None:
    shop = isolated(WAIT, OPEN)

    async def wait() -> None:
        async with timed(WAIT, instruments=shop), in_flight(OPEN, instruments=shop):
            await asyncio.sleep(0.01)
            assert value(shop.registry, OPEN) == 1

    asyncio.run(wait())
    with suppress(KeyError), timed(WAIT, instruments=shop):
        raise KeyError("no")
    assert value(shop.registry, WAIT, outcome="ok") == 1
    assert value(shop.registry, WAIT, outcome="error") == 1
    assert value(shop.registry, OPEN) == 0


def test_one_measurement_serves_many_tasks_at_once_and_each_has_its_own_time() -> None:
    shop = isolated(WAIT)
    waiting = timed(WAIT, instruments=shop)

    async def wait(seconds: float) -> None:
        async with waiting:
            await asyncio.sleep(seconds)

    async def crowd() -> None:
        # The first one in is the first one out, so a stack would give each the other's time.
        await asyncio.gather(wait(0.001), wait(0.3))

    asyncio.run(crowd())
    assert value(shop.registry, WAIT, part="bucket", le="0.1") == 1
    assert value(shop.registry, WAIT) == 2


def test_one_measurement_nests_and_serves_threads_and_exit_stacks() -> None:
    shop = isolated(OPEN)
    working = in_flight(OPEN, instruments=shop)
    barrier = Barrier(4)

    def work() -> None:
        with working, working, ExitStack() as stack:
            stack.enter_context(working)
            barrier.wait(5)
            barrier.wait(5)

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    barrier.wait(5)
    assert value(shop.registry, OPEN) == 9
    barrier.wait(5)
    for thread in threads:
        thread.join(5)
    assert value(shop.registry, OPEN) == 0
