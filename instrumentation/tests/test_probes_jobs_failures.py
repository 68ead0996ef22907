"""The probe of messages when something fails: the broker, the message, or the probe itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import aio_pika
import pytest
from aio_pika import Message
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.groups import JOB_DELIVERED, JOB_PUBLISHED, JOBS
from taskscope.context import RequestContext, current_request
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes import jobs_delivery
from taskscope.probes.jobs import MAX_CONSUMERS, JobsProbe
from taskscope.probes.jobs_message import age_s, destination, remote_span, stamped
from taskscope.testing.engines import Missing, free_ports, new_password, rabbitmq, start
from taskscope.testing.metrics import isolated, value

NOW = 1_700_000_000.25
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def instruments() -> Instruments:
    return isolated(*JOBS)


@pytest.fixture
def probe(instruments: Instruments) -> JobsProbe:
    return JobsProbe(instruments)


def errors(instruments: Instruments) -> float:
    return value(instruments.registry, LIBRARY_ERRORS, component="probes")


class Broken:
    """Neither a message nor an exchange."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"planted in {name}")


class Exchange:
    """An exchange that keeps what it is given."""

    name = ""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def publish(self, message: Any, routing_key: str, *, mandatory: bool = True) -> str:
        self.sent.append(message)
        return f"{routing_key} {mandatory}"


@contextmanager
def serving(**ids: Any) -> Iterator[None]:
    token = current_request.set(RequestContext(request_id="0" * 32, method="GET", path="/", **ids))
    yield
    current_request.reset(token)


@pytest.mark.engine
def test_a_broker_that_is_killed_is_an_error_for_the_counter_and_for_the_publisher_until_it_is_back(
    tmp_path: Any, probe: JobsProbe, instruments: Instruments
) -> None:
    password, ports = new_password(), free_ports(3)
    try:
        spec = rabbitmq.rabbitmq(
            tmp_path, port=ports[0], internal_ports=(ports[1], ports[2]), password=password
        )
    except Missing as missing:
        pytest.skip(str(missing))
    servers = [start(spec)]

    async def run() -> BaseException:
        url = rabbitmq.url(port=ports[0], password=password)
        async with await aio_pika.connect_robust(url, timeout=10, reconnect_interval=0.1) as robust:
            channel = await robust.channel()
            await channel.declare_queue("orders", durable=True)
            exchange = probe.watch_publisher(channel.default_exchange)
            await exchange.publish(Message(b""), "orders")
            await asyncio.to_thread(servers[0].kill)
            refused = await failure_of(exchange.publish(Message(b""), "orders", timeout=2))
            servers.append(await asyncio.to_thread(start, spec))
            async with asyncio.timeout(30):
                while await failure_of(  # noqa: ASYNC110 - it asks the broker, which sets no event
                    exchange.publish(Message(b""), "orders", timeout=2)
                ):
                    await asyncio.sleep(0.05)
        assert refused is not None
        return refused

    try:
        error = asyncio.run(run())
    finally:
        for server in servers:
            server.stop()

    assert isinstance(
        error, (ConnectionError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError)
    )
    assert value(instruments.registry, JOB_PUBLISHED, outcome="ok") == 2
    assert value(instruments.registry, JOB_PUBLISHED, outcome="error") >= 1
    assert errors(instruments) == 0


async def failure_of(publishing: Awaitable[Any]) -> Exception | None:
    try:
        await publishing
    except Exception as error:  # noqa: BLE001 - which one is aio-pika's choice
        return error
    return None


def test_what_is_no_message_is_handled_as_ever_and_the_failure_is_counted(
    probe: JobsProbe, instruments: Instruments
) -> None:
    @probe.handled("orders")
    async def handler(message: Any) -> str:
        return "done"

    assert asyncio.run(handler(Broken())) == "done"
    assert errors(instruments) >= 1
    assert current_request.get() is None


def test_a_message_that_cannot_be_stamped_is_published_as_it_is(
    probe: JobsProbe, instruments: Instruments
) -> None:
    exchange, message = Exchange(), Broken()
    probe.watch_publisher(exchange)

    answer = asyncio.run(exchange.publish(message, "orders", mandatory=False))

    assert answer == "orders False"
    assert exchange.sent == [message]
    assert errors(instruments) == 1


def test_what_cannot_be_watched_is_given_back_and_counted(
    probe: JobsProbe, instruments: Instruments
) -> None:
    broken: Any = Broken()

    assert probe.watch_publisher(broken) is broken
    assert errors(instruments) == 1


@pytest.mark.parametrize("hook", ["remote_span", "age_s", "uuid4", "_settling", "_outcome"])
def test_a_fault_in_any_hook_reaches_no_handler(
    hook: str, probe: JobsProbe, instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(jobs_delivery, hook, planted)
    message: Any = Message(b"")
    unsettled: Any = type("Incoming", (), {"redelivered": False, "processed": False})()
    unsettled.headers, unsettled.timestamp = message.headers, message.timestamp

    with pytest.raises(LookupError, match="the handler's own"), probe.handling(unsettled, "q"):
        raise LookupError("the handler's own")

    assert errors(instruments) >= 1


def test_a_catalogue_without_the_group_is_told_at_the_start() -> None:
    with pytest.raises(MetricError, match=r"jobs: .* add \*JOBS of taskscope"):
        JobsProbe(isolated(*JOBS[:-1]))


def test_ten_thousand_queues_are_one_more_than_the_cap_and_no_more_memory(
    probe: JobsProbe, instruments: Instruments
) -> None:
    for number in range(10_000):
        with probe.handling(Message(b""), f"queue-{number}"):
            pass

    counted = [
        sample
        for family in instruments.registry.collect()
        for sample in family.samples
        if sample.name == JOB_DELIVERED.series
    ]
    assert len(counted) <= 2 * (JOB_DELIVERED.labels[0].cap + 1)
    assert len(probe._consumers) <= MAX_CONSUMERS


def test_the_age_is_that_of_the_header_else_of_the_timestamp_and_never_negative() -> None:
    def aged(**given: Any) -> float | None:
        return age_s(Message(b"", **given), NOW)

    at = datetime.fromtimestamp(NOW - 2, tz=UTC)
    assert aged(timestamp=at, headers={"timestamp_in_ms": int(NOW * 1000) - 250}) == 0.25
    assert aged(timestamp=at) == 2
    assert aged(timestamp=NOW + 3_600) == 0
    assert aged(headers={"timestamp_in_ms": True}) is None
    assert aged(headers={"timestamp_in_ms": "now"}, timestamp=at) == 2
    assert aged() is None


def test_a_message_keeps_its_own_time_and_trace() -> None:
    whole = Message(b"", timestamp=NOW - 5, headers={"traceparent": "theirs"})
    traced = Message(b"", headers={"traceparent": "theirs"})

    assert stamped(whole, NOW) is whole
    sent: Any = stamped(traced, NOW)
    assert sent.headers == {"traceparent": "theirs", "timestamp_in_ms": int(NOW * 1000)}
    assert traced.headers == {"traceparent": "theirs"}


def test_without_a_span_the_requests_ids_are_sent_and_without_a_trace_none() -> None:
    with serving(trace_id=TRACE, span_id=SPAN, sampled=True):
        sampled: Any = stamped(Message(b""), NOW)
    with serving(trace_id=TRACE, span_id=SPAN):
        unsampled: Any = stamped(Message(b""), NOW)
    with serving():
        untraced: Any = stamped(Message(b""), NOW)

    assert sampled.headers["traceparent"] == TRACEPARENT
    assert unsampled.headers["traceparent"] == f"00-{TRACE}-{SPAN}-00"
    assert "traceparent" not in untraced.headers


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-0",
        f"00-{'0' * 32}-{SPAN}-01",
        f"{TRACEPARENT}{'0' * 10_000}",
        b"\xff" * 55,
        7,
        ["00"],
    ],
)
def test_a_malformed_traceparent_is_none(header: Any) -> None:
    assert remote_span(Message(b"", headers={"traceparent": header})) is None


@given(st.text() | st.binary() | st.integers() | st.none())
def test_whatever_a_header_holds_is_a_valid_span_or_none(header: Any) -> None:
    found = remote_span(Message(b"", headers={"traceparent": header}))

    assert found is None or found.is_valid


def test_a_traceparent_in_bytes_is_read() -> None:
    found = remote_span(Message(b"", headers={"traceparent": TRACEPARENT.encode()}))

    assert found is not None
    assert f"{found.trace_id:032x}" == TRACE


def test_names_that_the_broker_made_up_are_one_destination() -> None:
    assert destination("amq.gen-JzTY20BRgKO-HjmUJj0wLg") == "amq.gen-*"
    assert destination("amq.rabbitmq.reply-to.g2gCZA") == "amq.rabbitmq.reply-to.*"
    assert destination("amq.topic") == "amq.topic"
