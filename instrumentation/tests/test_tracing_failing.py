"""Tracing that fails: whatever is planted in it, the request is served as if there were none, and it is counted."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.context import current_request
from taskscope.testing.metrics import value
from taskscope.tracing.decider import Decider
from taskscope.tracing.passage import Passage

Way = Literal[True, "native"]
WAYS: tuple[Way, ...] = (True, "native")
Served = tuple[FastAPI, Telemetry]


@pytest.fixture(params=WAYS, ids=str)
def served(request: pytest.FixtureRequest) -> Served:
    return _service(request.param)


def _service(way: Way, **settings: Any) -> Served:
    app = FastAPI()

    @app.get("/echo")
    async def echo(word: str) -> list[str | None]:
        request = current_request.get()
        assert request is not None
        return [word, request.trace_id]

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    telemetry = instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=way,
        settings=Settings(**settings),
    )
    return app, telemetry


def _ask(app: FastAPI, path: str, **headers: str) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(request())


def _errors(telemetry: Telemetry) -> float:
    return value(telemetry.registry, LIBRARY_ERRORS, component="tracing")


def _spans(telemetry: Telemetry) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    assert telemetry.tracing is not None
    telemetry.tracing.provider.add_span_processor(SimpleSpanProcessor(memory))
    return memory


class _Failing(SpanProcessor):
    def __init__(self, hook: str) -> None:
        self._hook = hook

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002
        if self._hook == "on_start":
            raise RuntimeError("planted")

    def _on_ending(self, span: Any) -> None:  # noqa: ARG002
        if self._hook == "_on_ending":
            raise RuntimeError("planted")

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002
        if self._hook == "on_end":
            raise RuntimeError("planted")


@pytest.mark.parametrize("hook", ["on_start", "_on_ending", "on_end"])
def test_when_a_span_processor_fails_the_request_is_served(served: Served, hook: str) -> None:
    app, telemetry = served
    assert telemetry.tracing is not None
    telemetry.tracing.provider.add_span_processor(_Failing(hook))
    assert _ask(app, "/echo?word=served").json()[0] == "served"
    assert _errors(telemetry) == 1
    assert value(telemetry.registry, REQUEST_DURATION, outcome="ok") == 1


class _NoIds(RandomIdGenerator):
    def generate_span_id(self) -> int:
        raise RuntimeError("planted")


class _NoDecision(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        raise RuntimeError("planted")

    def get_description(self) -> str:
        return ALWAYS_ON.get_description()


@pytest.mark.parametrize(
    ("part", "planted"), [("id_generator", _NoIds()), ("sampler", _NoDecision())]
)
def test_when_the_span_cannot_be_made_the_request_is_served_as_one_without(
    served: Served, monkeypatch: pytest.MonkeyPatch, part: str, planted: object
) -> None:
    app, telemetry = served
    spans = _spans(telemetry)
    _plant(app, telemetry, monkeypatch, part, planted)
    response = _ask(app, "/echo?word=served")
    assert (response.status_code, response.json()[0]) == (200, "served")
    assert len(response.json()[1]) == 32
    assert spans.get_finished_spans() == ()
    assert _errors(telemetry) == 1
    assert value(telemetry.registry, REQUEST_DURATION, outcome="ok") == 1


def test_when_the_span_cannot_be_made_the_services_own_error_is_still_a_500(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, telemetry = served
    _plant(app, telemetry, monkeypatch, "id_generator", _NoIds())
    assert _ask(app, "/boom").status_code == 500


def _plant(
    app: FastAPI,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    planted: object,
) -> None:
    assert telemetry.tracing is not None
    monkeypatch.setattr(telemetry.tracing.provider, part, planted)  # for tracers made from now on
    for tracer in telemetry.tracing.provider._tracers.values():
        monkeypatch.setattr(tracer, part, planted)


def test_when_the_decision_fails_the_request_is_served(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> Passage:
        raise RuntimeError("planted")

    monkeypatch.setattr(Decider, "decide", raising)
    app, telemetry = served
    assert _ask(app, "/echo?word=served").json() == ["served", None]
    assert _errors(telemetry) == 1


def test_when_hiding_fails_the_request_is_served_whole(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Passage, "hide", raising)
    app, telemetry = served
    assert _ask(app, "/echo?word=served").json()[0] == "served"
    assert _errors(telemetry) == 1


@pytest.mark.parametrize("part", ["name_span", "note_user"])
def test_when_the_span_cannot_be_named_the_request_is_served(
    served: Served, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def raising(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(f"taskscope.tracing.layers.{part}", raising)
    app, telemetry = served
    assert _ask(app, "/echo?word=served").json()[0] == "served"
    assert _errors(telemetry) == 1


def test_when_the_late_span_cannot_be_written_the_error_page_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raising(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.tracing.service.late_span", raising)
    app, telemetry = _service(True, trace_ratio=0.0)
    assert _ask(app, "/boom").status_code == 500
    assert _errors(telemetry) == 1
    assert value(telemetry.registry, REQUEST_DURATION, outcome="server_error") == 1
