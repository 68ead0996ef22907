"""One message from its delivery to the end of its handler, and how it was settled."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from taskscope.catalogue.groups import JOB_AGE, JOB_DELIVERED, JOB_DURATION, JOB_SETTLED
from taskscope.context import Opened, RequestContext, current_request
from taskscope.metrics.instruments import Instruments
from taskscope.probes.jobs_message import age_s, remote_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

__all__ = ["Consumer", "Delivery"]

_METHOD: Final = "PROCESS"
_SETTLES: Final = "__taskscope_settles__"


class Consumer:
    """What the deliveries of one queue share: its series, and the classes of its messages."""

    __slots__ = (
        "_age",
        "_delivered",
        "_duration",
        "_kinds",
        "_settled",
        "clock",
        "instruments",
        "logs",
        "now",
        "queue",
        "tracer",
        "trusted",
    )

    def __init__(
        self,
        instruments: Instruments,
        queue: str,
        *,
        trusted: bool,
        logs: object | None,
        tracer: Tracer | None,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.instruments = instruments
        self.queue = queue
        self.trusted = trusted
        self.logs = logs
        self.tracer = tracer
        self.clock = clock
        self.now = now
        self._delivered = instruments.counter(JOB_DELIVERED)
        self._settled = instruments.counter(JOB_SETTLED)
        self._age = instruments.histogram(JOB_AGE)
        self._duration = instruments.histogram(JOB_DURATION)
        self._kinds: dict[type, type] = {}

    def deliver(self, message: Any) -> None:
        """The delivery and the message's age are counted, and so will be whatever settles it."""
        redelivered = "true" if message.redelivered else "false"
        self._delivered.at((self.queue, redelivered)).inc()
        age = age_s(message, self.now())
        if age is not None:
            self._age.at((self.queue,)).observe(age)
        if (
            message.processed
        ):  # without acknowledgement: the broker took it for settled when it sent it
            self.settle("ack")
        else:
            self._watch(message)

    def settle(self, result: str) -> None:
        """A message was settled so. Never raises."""
        try:
            self._settled.at((self.queue, result)).inc()
        except Exception as error:  # noqa: BLE001 - a probe never fails what it watches
            self.instruments.failed("probes", error)

    def ended(self, outcome: str, took_s: float) -> None:
        """A handler ended so."""
        self._duration.at((self.queue, outcome)).observe(took_s)

    def _watch(self, message: Any) -> None:
        kind = type(message)
        if getattr(kind, _SETTLES, False):
            return
        watched = self._kinds.get(kind)
        if watched is None:
            watched = self._kinds[kind] = _settling(kind, self.settle)
        # Its methods cannot be replaced: aio-pika's messages have slots and no dict.
        message.__class__ = watched


class Delivery:
    """One message while it is handled: the block's time, outcome, log context and trace.

    Entering and leaving it never raise, and an exception of the block passes through unchanged.
    """

    __slots__ = ("_attached", "_began", "_consumer", "_message", "_span", "_token")

    def __init__(self, consumer: Consumer, message: object) -> None:
        self._consumer = consumer
        self._message = message
        self._began = 0.0
        self._token: Token[RequestContext | Opened | None] | None = None
        self._attached: Token[Context] | None = None
        self._span: Span | None = None

    def __enter__(self) -> None:
        consumer = self._consumer
        try:
            self._token = current_request.set(self._context())
            consumer.deliver(self._message)
        except Exception as error:  # noqa: BLE001 - a probe never fails what it watches
            consumer.instruments.failed("probes", error)
        try:
            self._trace()
        except Exception as error:  # noqa: BLE001 - a fault in a trace never fails the handler
            consumer.instruments.failed("probes", error)
        self._began = consumer.clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace_back: TracebackType | None,
    ) -> None:
        for step in (self._count, self._untrace, self._leave):
            try:
                step(error)
            except Exception as fault:  # noqa: BLE001 - a probe never fails what it watches
                self._consumer.instruments.failed("probes", fault)

    def _context(self) -> RequestContext:
        consumer = self._consumer
        return RequestContext(
            request_id=uuid4().hex,
            method=_METHOD,
            path=consumer.queue,
            logs=consumer.logs,
            instruments=consumer.instruments,
        )

    def _trace(self) -> None:
        from opentelemetry import context, trace

        consumer = self._consumer
        remote = remote_span(self._message)
        here = context.Context()
        links = []
        if remote is not None:
            if consumer.trusted:
                here = trace.set_span_in_context(trace.NonRecordingSpan(remote), here)
            else:
                links.append(trace.Link(remote))
        if consumer.tracer is not None:
            self._span = consumer.tracer.start_span(
                f"process {consumer.queue}",
                context=here,
                kind=trace.SpanKind.CONSUMER,
                links=links,
                attributes={
                    "messaging.system": "rabbitmq",
                    "messaging.destination.name": consumer.queue,
                    "messaging.operation.type": "process",
                },
            )
            here = trace.set_span_in_context(self._span, here)
        self._note(trace.get_current_span(here).get_span_context())
        self._attached = context.attach(here)

    def _note(self, span: Any) -> None:
        request = current_request.get()
        if request is None or not span.is_valid:
            return
        request.trace_id = f"{span.trace_id:032x}"
        request.span_id = f"{span.span_id:016x}"
        request.sampled = span.trace_flags.sampled

    def _count(self, error: BaseException | None) -> None:
        consumer = self._consumer
        consumer.ended(_outcome(error), consumer.clock() - self._began)

    def _leave(self, _: BaseException | None) -> None:
        if self._token is not None:
            current_request.reset(self._token)

    def _untrace(self, error: BaseException | None) -> None:
        if self._span is not None:
            if isinstance(error, Exception):
                from opentelemetry.trace import StatusCode

                self._span.record_exception(error)
                self._span.set_attribute("error.type", type(error).__name__)
                self._span.set_status(StatusCode.ERROR)
            self._span.end()
        if self._attached is not None:
            from opentelemetry import context

            context.detach(self._attached)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return "cancelled" if isinstance(error, CancelledError) else "error"


def _settling(kind: type, settle: Callable[[str], None]) -> type:
    """The class of a message, whose ack, reject and nack also tell `settle` once they have come about."""
    plain = cast("Any", kind)

    async def ack(message: object, *args: Any, **options: Any) -> None:
        await plain.ack(message, *args, **options)
        settle("ack")

    async def reject(message: object, requeue: bool = False) -> None:
        await plain.reject(message, requeue=requeue)
        settle("requeue" if requeue else "dead_letter")

    async def nack(message: object, multiple: bool = False, requeue: bool = True) -> None:
        await plain.nack(message, multiple=multiple, requeue=requeue)
        settle("requeue" if requeue else "dead_letter")

    members = {"ack": ack, "reject": reject, "nack": nack, _SETTLES: True, "__slots__": ()}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})
