"""Messages over a real RabbitMQ: each publish, delivery and settlement counted once, and nothing changed by it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError, MessageProcessError
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskscope.catalogue import Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.groups import (
    JOB_AGE,
    JOB_DELIVERED,
    JOB_DURATION,
    JOB_PUBLISH_DURATION,
    JOB_PUBLISHED,
    JOB_SETTLED,
    JOBS,
)
from taskscope.context import current_request
from taskscope.metrics.instruments import Instruments
from taskscope.probes.jobs import JobsProbe
from taskscope.testing.engines import Missing, free_ports, new_password, rabbitmq, running
from taskscope.testing.logs import captured_lines
from taskscope.testing.metrics import isolated, value
from taskscope.testing.waiting import until_async

pytestmark = pytest.mark.engine

TRACE = "0af7651916cd43dd8448eb211c80319c"
PASSWORD = new_password()
SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class Jobs:
    """A probe over isolated instruments."""

    def __init__(self, **options: Any) -> None:
        self.instruments: Instruments = isolated(*JOBS)
        self.probe = JobsProbe(self.instruments, **options)

    def count(self, metric: Metric, queue: str, *, part: str = "", **labels: str) -> float:
        return value(
            self.instruments.registry,
            metric,
            part=part,
            messaging_destination_name=queue,
            **labels,
        )

    def errors(self) -> float:
        return value(self.instruments.registry, LIBRARY_ERRORS)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that all tests of this module share, each with queues of its own."""
    with running(a_broker(tmp_path_factory.mktemp("rabbitmq"))) as server:
        yield rabbitmq.url(port=server.spec.ports[0], password=PASSWORD)


def a_broker(folder: Any) -> Any:
    port, *internal = free_ports(3)
    try:
        return rabbitmq.rabbitmq(
            folder, port=port, internal_ports=(internal[0], internal[1]), password=PASSWORD
        )
    except Missing as missing:
        pytest.skip(str(missing))


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url, timeout=10) as connection:
        yield await connection.channel(**options)


@asynccontextmanager
async def queue_of(url: str, name: str, **arguments: Any) -> AsyncIterator[AbstractQueue]:
    async with opened(url) as channel:
        yield await channel.declare_queue(name, auto_delete=True, arguments=arguments or None)


async def consumed(
    queue: AbstractQueue,
    handler: Callable[[Any], Awaitable[Any]],
    holds: Callable[[], bool],
    **options: Any,
) -> None:
    """`handler` has consumed from `queue` until `holds`."""
    tag = await queue.consume(handler, **options)
    await until_async(holds, within_s=10)
    await queue.cancel(tag)


def test_a_confirmed_message_is_counted_once_with_its_time(url: str, jobs: Jobs) -> None:
    async def run() -> None:
        async with queue_of(url, "orders") as queue:
            exchange = jobs.probe.watch_publisher(queue.channel.default_exchange)
            assert jobs.probe.watch_publisher(exchange) is exchange
            confirmed = await exchange.publish(Message(b"one"), routing_key="orders")
            assert type(confirmed).__name__ == "Ack"

    asyncio.run(run())

    assert jobs.count(JOB_PUBLISHED, "orders", outcome="ok") == 1
    assert jobs.count(JOB_PUBLISHED, "orders", outcome="error") == 0
    assert 0 < jobs.count(JOB_PUBLISH_DURATION, "orders", part="sum") < 5


def test_a_named_exchange_is_the_destination_and_reply_queues_are_one(url: str, jobs: Jobs) -> None:
    async def run() -> None:
        async with opened(url) as channel:
            exchange = await channel.declare_exchange("events", "fanout", auto_delete=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange)
            await jobs.probe.watch_publisher(exchange).publish(Message(b""), "any.key.1234")
            default = jobs.probe.watch_publisher(channel.default_exchange)
            await default.publish(Message(b""), queue.name)

    asyncio.run(run())

    assert jobs.count(JOB_PUBLISHED, "events", outcome="ok") == 1
    assert jobs.count(JOB_PUBLISHED, "amq.gen-*", outcome="ok") == 1


def test_what_the_broker_returns_or_refuses_is_an_error_and_reaches_the_publisher(
    url: str, jobs: Jobs
) -> None:
    async def run() -> None:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        async with queue_of(url, "full", **full) as queue:
            exchange = jobs.probe.watch_publisher(queue.channel.default_exchange)
            returned = await exchange.publish(Message(b"lost"), "nowhere")
            assert returned is not None
            await exchange.publish(Message(b""), "full")
            refused = exchange.publish(Message(b""), "full")
            with pytest.raises(DeliveryError):
                await refused

    asyncio.run(run())

    assert jobs.count(JOB_PUBLISHED, "nowhere", outcome="error") == 1
    assert jobs.count(JOB_PUBLISHED, "full", outcome="error") == 1
    assert jobs.count(JOB_PUBLISH_DURATION, "nowhere") == 0


def test_a_message_is_sent_with_its_time_and_trace_and_is_itself_left_alone(
    url: str, jobs: Jobs
) -> None:
    shared: Any = {"tenant": "a"}
    message = Message(b"body", headers=shared, delivery_mode=DeliveryMode.PERSISTENT, type="t")

    async def run() -> AbstractIncomingMessage:
        async with queue_of(url, "stamped") as queue:
            exchange = jobs.probe.watch_publisher(queue.channel.default_exchange)
            context = trace.SpanContext(
                int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=trace.TraceFlags(1)
            )
            with trace.use_span(trace.NonRecordingSpan(context)):
                await exchange.publish(message, "stamped")
            return await queue.get(no_ack=True)

    before = time.time()
    received = asyncio.run(run())

    assert received.headers["traceparent"] == TRACEPARENT
    assert before - 1 <= int(str(received.headers["timestamp_in_ms"])) / 1000 <= time.time()
    assert received.timestamp is not None
    assert (received.body, received.type, received.headers["tenant"]) == (b"body", "t", "a")
    assert received.delivery_mode == DeliveryMode.PERSISTENT
    assert shared == {"tenant": "a"}
    assert message.timestamp is None


def test_a_delivery_its_age_and_its_settlement_are_counted(url: str, jobs: Jobs) -> None:
    handled = 0

    @jobs.probe.handled("work")
    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal handled
        handled += 1
        if handled == 1:
            await message.reject(requeue=True)
        elif handled == 2:
            await message.nack()
        else:
            async with message.process():
                assert message.redelivered

    async def run() -> None:
        async with queue_of(url, "work") as queue:
            exchange = jobs.probe.watch_publisher(queue.channel.default_exchange)
            await exchange.publish(Message(b""), "work")
            acked = lambda: jobs.count(JOB_DURATION, "work", outcome="ok") == 3  # noqa: E731
            await consumed(queue, handler, acked)

    asyncio.run(run())

    assert jobs.count(JOB_DELIVERED, "work", redelivered="false") == 1
    assert jobs.count(JOB_DELIVERED, "work", redelivered="true") == 2
    assert jobs.count(JOB_SETTLED, "work", result="requeue") == 2
    assert jobs.count(JOB_SETTLED, "work", result="ack") == 1
    assert jobs.count(JOB_SETTLED, "work", result="dead_letter") == 0
    assert jobs.count(JOB_AGE, "work") == 3
    assert jobs.count(JOB_AGE, "work", part="sum") < 3
    assert jobs.errors() == 0


def test_a_handler_that_fails_is_an_error_and_its_message_goes_to_the_dead_letters(
    url: str, jobs: Jobs
) -> None:
    seen: list[BaseException] = []

    @jobs.probe.handled("poison")
    async def measured(message: AbstractIncomingMessage) -> None:
        async with message.process():
            raise LookupError("planted")

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await measured(message)
        except LookupError as error:
            seen.append(error)

    async def run() -> bytes:
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        async with queue_of(url, "dead") as dead_letters, queue_of(url, "poison", **dead) as queue:
            await queue.channel.default_exchange.publish(Message(b"bad"), "poison")
            await consumed(queue, handler, lambda: bool(seen))
            found = await dead_letters.get(timeout=10, no_ack=True)
            return found.body

    assert asyncio.run(run()) == b"bad"
    assert str(seen[0]) == "planted"
    assert jobs.count(JOB_DURATION, "poison", outcome="error") == 1
    assert jobs.count(JOB_SETTLED, "poison", result="dead_letter") == 1
    assert jobs.count(JOB_AGE, "poison") == 0


def test_a_handler_that_is_cancelled_is_counted_once_and_stays_cancelled(
    url: str, jobs: Jobs
) -> None:
    async def run() -> None:
        async with queue_of(url, "slow") as queue:
            await queue.channel.default_exchange.publish(Message(b""), "slow")
            message = await queue.get(timeout=10)
            begun = asyncio.Event()

            @jobs.probe.handled("slow")
            async def handler(_: AbstractIncomingMessage) -> None:
                begun.set()
                await asyncio.sleep(60)

            task = asyncio.create_task(handler(message))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await message.ack()

    asyncio.run(run())

    assert jobs.count(JOB_DURATION, "slow", outcome="cancelled") == 1
    assert jobs.count(JOB_DURATION, "slow") == 1
    assert jobs.count(JOB_SETTLED, "slow", result="ack") == 1


def test_messages_from_an_iterator_and_without_acknowledgement_are_counted(
    url: str, jobs: Jobs
) -> None:
    async def run() -> None:
        async with queue_of(url, "stream") as queue:
            for _ in range(3):
                await queue.channel.default_exchange.publish(Message(b""), "stream")
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    with jobs.probe.handling(message, "stream"):
                        pass
                    if jobs.count(JOB_DELIVERED, "stream") == 3:
                        break

    asyncio.run(run())

    assert jobs.count(JOB_SETTLED, "stream", result="ack") == 3
    assert jobs.count(JOB_DURATION, "stream", outcome="ok") == 3


def test_settling_twice_fails_as_ever_and_is_counted_once(url: str, jobs: Jobs) -> None:
    async def run() -> None:
        async with queue_of(url, "twice") as queue:
            await queue.channel.default_exchange.publish(Message(b""), "twice")
            message = await queue.get(timeout=10)
            with (
                jobs.probe.handling(message, "twice"),
                jobs.probe.handling(message, "twice"),
            ):
                assert isinstance(message, aio_pika.IncomingMessage)
                await message.ack()
                with pytest.raises(MessageProcessError):
                    await message.ack()

    asyncio.run(run())

    assert jobs.count(JOB_SETTLED, "twice") == 1


def test_a_handlers_lines_and_messages_go_on_in_the_trace_of_its_message(
    url: str, jobs: Jobs
) -> None:
    async def run() -> str:
        async with queue_of(url, "first") as queue, queue_of(url, "second") as second:
            exchange = jobs.probe.watch_publisher(queue.channel.default_exchange)

            @jobs.probe.handled("first")
            async def handler(message: AbstractIncomingMessage) -> None:
                async with message.process():
                    logging.getLogger("shop").warning("packed")
                    await exchange.publish(Message(b""), "second")

            await exchange.publish(Message(b"", headers={"traceparent": TRACEPARENT}), "first")
            await consumed(queue, handler, lambda: jobs.count(JOB_DURATION, "first") == 1)
            assert current_request.get() is None
            sent_on = await second.get(timeout=10, no_ack=True)
            return str(sent_on.headers["traceparent"])

    with captured_lines() as lines:
        sent_on = asyncio.run(run())
        (line,) = [line for line in lines() if line["message"] == "packed"]

    assert sent_on == TRACEPARENT
    assert line["trace.id"] == TRACE
    assert len(line["http.request.id"]) == 32


@pytest.mark.parametrize("trusted", [True, False])
def test_a_span_a_delivery_is_a_child_of_the_messages_or_linked_to_it(
    url: str, trusted: bool
) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    jobs = Jobs(tracer=provider.get_tracer("test"))

    @jobs.probe.handled("traced", trusted=trusted)
    async def failing(_: AbstractIncomingMessage) -> None:
        request = current_request.get()
        assert request is not None
        assert request.span_id is not None
        raise LookupError("planted")

    async def run() -> None:
        async with queue_of(url, "traced") as queue:
            await queue.channel.default_exchange.publish(
                Message(b"", headers={"traceparent": TRACEPARENT}), "traced"
            )
            message = await queue.get(timeout=10, no_ack=True)
            with pytest.raises(LookupError):
                await failing(message)

    asyncio.run(run())
    (span,) = memory.get_finished_spans()
    provider.shutdown()

    assert (f"{span.context.trace_id:032x}" == TRACE) == trusted
    assert [f"{link.context.trace_id:032x}" for link in span.links] == ([] if trusted else [TRACE])
    assert span.name == "process traced"
    assert span.attributes is not None
    assert span.attributes["error.type"] == "LookupError"
