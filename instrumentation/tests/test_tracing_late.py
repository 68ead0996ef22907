"""A request that was not sampled, and failed or was slow, has its server span all the same: written afterwards."""

from __future__ import annotations

import asyncio
from time import time_ns
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import TRACED
from taskscope.context import current_request
from taskscope.testing.metrics import value
from taskscope.testing.server import serving

Way = Literal[True, "native"]
PARENT = f"00-{'a' * 32}-{'b' * 16}-00"


class Late:
    """A service that samples nothing, and what it kept."""

    def __init__(self, way: Way = True, **settings: Any) -> None:
        self.app = _service()
        self.telemetry: Telemetry = instrument(
            self.app,
            service_name="test",
            service_version="1",
            logs=False,
            tracing=way,
            settings=Settings(**{"trace_ratio": 0.0, **settings}),
        )
        self.memory = InMemorySpanExporter()
        assert self.telemetry.tracing is not None
        provider = self.telemetry.tracing.provider
        provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def ask(self, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(request())

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.memory.get_finished_spans()

    def decided(self, decision: str) -> float:
        return value(self.telemetry.registry, TRACED, decision=decision)


def _service() -> FastAPI:
    app = FastAPI()
    seen: dict[str, str | None] = {}

    def note() -> None:
        request = current_request.get()
        assert request is not None
        seen.update(trace=request.trace_id, span=request.span_id)

    @app.get("/fine/{number}")
    async def fine(number: int) -> int:
        return number

    @app.get("/boom/{number}")
    async def boom(number: int) -> None:
        note()
        raise RuntimeError(f"broken by {number}")

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(503, "later")

    @app.get("/late")
    async def late() -> None:
        raise TimeoutError

    @app.get("/slow")
    async def slow() -> None:
        note()
        await asyncio.sleep(0.03)

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def lines() -> Any:
            yield "data: 1\n\n"
            await asyncio.sleep(0.03)

        return StreamingResponse(lines(), media_type="text/event-stream")

    app.state.seen = seen
    return app


def test_a_failure_has_its_span_under_the_ids_that_its_lines_bear() -> None:
    service = Late()
    began = time_ns()
    answer = service.ask("/boom/7?token=needle", **{"user-agent": "curl/8"})
    over = time_ns()
    (span,) = service.spans
    context = span.context
    assert context is not None
    assert service.app.state.seen == {
        "trace": f"{context.trace_id:032x}",
        "span": f"{context.span_id:016x}",
    }
    assert context.trace_flags.sampled
    assert (span.name, span.kind, span.parent) == ("GET /boom/{number}", SpanKind.SERVER, None)
    assert span.start_time is not None
    assert span.end_time is not None
    slack = 50_000_000  # ns: a machine's clock is set back by some ms now and then
    assert began - slack <= span.start_time < span.end_time <= over + slack
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 500,
        "http.route": "/boom/{number}",
        "http.request.id": answer.headers["x-request-id"],
        "url.path": "/boom/7",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "server.address": "test",
        "user_agent.original": "curl/8",
        "error.type": "RuntimeError",
    }


def test_a_failures_exception_is_an_event_and_its_status_an_error() -> None:
    service = Late()
    service.ask("/boom/7")
    (span,) = service.spans
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "RuntimeError: broken by 7",
    )
    (event,) = span.events
    assert event.name == "exception"
    told = dict(event.attributes or {})
    assert told["exception.type"] == "RuntimeError"
    assert told["exception.message"] == "broken by 7"
    assert str(told["exception.stacktrace"]).rstrip().endswith("RuntimeError: broken by 7")


@pytest.mark.parametrize(
    ("path", "kept", "error", "status"),
    [
        ("/fine/7", False, None, None),
        ("/fine/seven", False, None, None),
        ("/nowhere", False, None, None),
        ("/boom/7", True, "RuntimeError", StatusCode.ERROR),
        ("/gone", True, "503", StatusCode.ERROR),
        ("/late", True, "TimeoutError", StatusCode.ERROR),
        ("/slow", True, None, StatusCode.UNSET),
        ("/events", False, None, None),
    ],
)
@pytest.mark.parametrize("way", [True, "native"])
def test_what_failed_or_was_slow_is_kept_and_nothing_else(
    way: Way, path: str, kept: bool, error: str | None, status: StatusCode | None
) -> None:
    service = Late(way, slow_request_s=0.02)
    service.ask(path)
    assert len(service.spans) == kept
    assert (service.decided("late"), service.decided("unsampled")) == (kept, not kept)
    for span in service.spans:
        assert (span.attributes or {}).get("error.type") == error
        assert span.status.status_code is status


def test_a_request_that_was_sampled_has_one_span_only() -> None:
    service = Late(trace_ratio=1.0)
    service.ask("/boom/7")
    assert len(service.spans) == 1
    assert (service.decided("sampled"), service.decided("late")) == (1, 0)


def test_a_trusted_callers_trace_is_continued_late_too() -> None:
    service = Late(trusted_hops=("127.0.0.1",))
    service.ask("/boom/7", traceparent=PARENT)
    (span,) = service.spans
    assert span.parent is not None
    assert span.context is not None
    assert f"{span.parent.span_id:016x}" == "b" * 16
    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert span.links == ()


def test_a_strangers_trace_is_a_link_late_too() -> None:
    service = Late()
    service.ask("/boom/7", traceparent=PARENT)
    (span,) = service.spans
    assert span.parent is None
    assert [f"{link.context.trace_id:032x}" for link in span.links] == ["a" * 32]


def test_a_storm_of_failures_is_capped() -> None:
    service = Late(max_traces_per_second=0.000_1)
    for _ in range(20):
        service.ask("/boom/7")
    assert len(service.spans) == 1
    assert (service.decided("late"), service.decided("capped")) == (1, 19)


def test_always_off_is_off_for_failures_too() -> None:
    service = Late(trace_sampler="always_off")
    service.ask("/boom/7")
    assert service.spans == ()
    assert service.decided("unsampled") == 1


def test_an_invented_method_is_told_as_an_attribute_only() -> None:
    service = Late()
    service.ask("/boom/7", method="BREW")
    service.ask("/nowhere", method="BREW")
    assert service.spans == ()


def test_a_failure_that_was_kept_leaves_an_exemplar() -> None:
    service = Late()
    service.ask("/boom/7")
    exemplars = [
        sample.exemplar.labels
        for family in service.telemetry.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    ]
    seen = service.app.state.seen
    assert {"trace_id": seen["trace"], "span_id": seen["span"]} in exemplars


def test_what_was_passed_over_leaves_no_exemplar() -> None:
    service = Late()
    service.ask("/fine/7")
    assert not [
        sample
        for family in service.telemetry.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    ]


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_failure_over_a_socket_has_its_span(http: Literal["h11", "httptools"]) -> None:
    service = Late()
    with serving(service.app, http=http) as url:
        assert httpx2.get(f"{url}/boom/7").status_code == 500
    assert [span.name for span in service.spans] == ["GET /boom/{number}"]
