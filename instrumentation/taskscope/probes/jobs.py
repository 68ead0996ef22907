"""Messages of a broker: what was published and delivered, how old it was, how its handler fared, how it was settled.

aio-pika is not imported: exchanges, queues' callbacks and messages are recognised by what they can do.

    telemetry.watch_publisher(channel.default_exchange)
    await queue.consume(telemetry.handled("orders")(handle))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from taskscope.catalogue.groups import JOB_PUBLISH_DURATION, JOB_PUBLISHED
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.jobs_delivery import Consumer, Delivery
from taskscope.probes.jobs_message import destination, stamped

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["MAX_CONSUMERS", "Exchange", "JobsProbe"]

MAX_CONSUMERS: Final = 256
"""The most queues whose series are kept at hand; names beyond are looked up for each message."""

_WATCHED: Final = "__taskscope_watched__"


class Exchange(Protocol):
    """What a message is published to: aio-pika's Exchange or RobustExchange."""

    @property
    def name(self) -> str: ...

    @property
    def publish(self) -> Callable[..., Awaitable[object]]: ...


ExchangeT = TypeVar("ExchangeT", bound=Exchange)
MessageT = TypeVar("MessageT")
ResultT = TypeVar("ResultT")


class JobsProbe:
    """The messaging series of one process.

    logs: the pipeline that takes the lines of handlers, where one process has several. tracer: makes one span a
    delivery; without it a handler's lines still bear the message's trace. clock: seconds, monotonic; now: seconds
    since 1970. Raises MetricError if the catalogue does not declare the group JOBS.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        logs: object | None = None,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = perf_counter,
        now: Callable[[], float] = time,
    ) -> None:
        self._instruments = instruments
        self._logs = logs
        self._tracer = tracer
        self._clock = clock
        self._now = now
        self._consumers: dict[tuple[str, bool], Consumer] = {}
        try:
            self._published = instruments.counter(JOB_PUBLISHED)
            self._confirmed = instruments.histogram(JOB_PUBLISH_DURATION)
            self._consumer(
                "", trusted=True
            )  # a group that is declared in part is told at the start
        except MetricError as error:
            raise MetricError(
                f"jobs: the catalogue of {instruments.catalogue.service} does not declare its metrics; "
                "add *JOBS of taskscope.catalogue.groups to Catalogue(metrics=…)"
            ) from error

    def watch_publisher(self, exchange: ExchangeT) -> ExchangeT:
        """Everything that is published to `exchange`, which is given back, is counted; twice is the same as once.

        The destination is the exchange's name; for the default exchange, which has none, the queue's. `ok` is
        what the broker confirmed (on a channel without confirms: what was written to it); what it returned
        because no queue takes it is an error. Each message is sent
        as a copy with `timestamp`, the header `timestamp_in_ms` and the current span's `traceparent`, where it
        has none of its own. What publishing raises is not changed.
        """
        try:
            if not getattr(exchange.publish, _WATCHED, False):
                # An instance's own attribute: aio-pika gives an application no other way in.
                exchange.publish = self._counted(exchange, exchange.publish)  # type: ignore[misc] # see above
        except Exception as error:  # noqa: BLE001 - a probe never fails what it watches
            self._instruments.failed("probes", error)
        return exchange

    def handled(
        self, queue: str, *, trusted: bool = True
    ) -> Callable[
        [Callable[[MessageT], Awaitable[ResultT]]],
        Callable[[MessageT], Coroutine[Any, Any, ResultT]],
    ]:
        """A decorator for the handler of `queue`'s messages: deliveries, ages, times and settlements are counted.

        queue: a name out of the code, never out of a message. trusted: whether the handler goes on in the trace
        that the message names; otherwise its span, if a tracer makes one, begins a trace and links to the
        message's. `message.ack(multiple=True)` counts as one. What the handler returns and raises is not changed.
        """

        def decorate(
            handler: Callable[[MessageT], Awaitable[ResultT]],
        ) -> Callable[[MessageT], Coroutine[Any, Any, ResultT]]:
            @wraps(handler)
            async def measured(message: MessageT) -> ResultT:
                with self.handling(message, queue, trusted=trusted):
                    return await handler(message)

            return measured

        return decorate

    def handling(self, message: object, queue: str, *, trusted: bool = True) -> Delivery:
        """The same for a block instead of a function: `with probe.handling(message, "orders"):`.

        For `async for message in queue` and `queue.get()`; settle the message inside the block.
        """
        return Delivery(self._consumer(queue, trusted=trusted), message)

    def _consumer(self, queue: str, *, trusted: bool) -> Consumer:
        name = destination(queue)
        consumer = self._consumers.get((name, trusted))
        if consumer is None:
            consumer = Consumer(
                self._instruments,
                name,
                trusted=trusted,
                logs=self._logs,
                tracer=self._tracer,
                clock=self._clock,
                now=self._now,
            )
            if len(self._consumers) < MAX_CONSUMERS:
                self._consumers[name, trusted] = consumer
        return consumer

    def _counted(
        self, exchange: Exchange, publish: Callable[..., Awaitable[object]]
    ) -> Callable[..., Coroutine[Any, Any, object]]:
        @wraps(publish)
        async def published(message: object, routing_key: str, **options: Any) -> object:
            began = self._clock()
            outcome = "error"
            try:
                result = await publish(self._stamped(message), routing_key, **options)
                if not _came_back(result):
                    outcome = "ok"
                return result
            finally:
                self._count(exchange, routing_key, outcome, self._clock() - began)

        setattr(published, _WATCHED, True)
        return published

    def _stamped(self, message: object) -> object:
        try:
            return stamped(message, self._now())
        except Exception as error:  # noqa: BLE001 - a message that cannot be stamped is sent as it is
            self._instruments.failed("probes", error)
            return message

    def _count(self, exchange: Exchange, routing_key: str, outcome: str, took_s: float) -> None:
        try:
            name = destination(exchange.name or routing_key)
            self._published.at((name, outcome)).inc()
            if outcome == "ok":
                self._confirmed.at((name,)).observe(took_s)
        except Exception as error:  # noqa: BLE001 - a probe never fails what it watches
            self._instruments.failed("probes", error)


def _came_back(result: object) -> bool:
    """Whether the broker returned the message: then publishing gives it back instead of a confirmation."""
    return hasattr(result, "delivery")
