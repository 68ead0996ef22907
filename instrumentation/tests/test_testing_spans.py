"""Spans that a test captures."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import TracerProvider

from taskscope.errors import InstrumentError
from taskscope.testing.spans import captured_spans


@dataclass
class Tracing:
    provider: TracerProvider


@dataclass
class Traced:
    tracing: Tracing | None


@pytest.fixture
def traced() -> Traced:
    return Traced(Tracing(TracerProvider()))


def _span(traced: Traced, name: str) -> None:
    assert traced.tracing is not None
    traced.tracing.provider.get_tracer("test").start_span(name).end()


def test_those_that_end_inside_the_block_are_kept_in_their_order(traced: Traced) -> None:
    _span(traced, "before")
    with captured_spans(traced) as spans:
        _span(traced, "first")
        assert [span.name for span in spans()] == ["first"]
        _span(traced, "second")
    _span(traced, "after")
    assert [span.name for span in spans()] == ["first", "second"]


def test_blocks_may_nest_and_each_hears_its_own(traced: Traced) -> None:
    with captured_spans(traced) as outer:
        _span(traced, "first")
        with captured_spans(traced) as inner:
            _span(traced, "second")
    assert [span.name for span in outer()] == ["first", "second"]
    assert [span.name for span in inner()] == ["second"]


def test_a_thousand_captures_leave_one_processor_behind(traced: Traced) -> None:
    assert traced.tracing is not None
    for _ in range(1_000):
        with captured_spans(traced):
            pass
    held = traced.tracing.provider._active_span_processor._span_processors
    assert len(held) == 1


def test_without_tracing_that_is_said() -> None:
    with (
        pytest.raises(InstrumentError, match="call instrument\\(\\) with tracing=True"),
        captured_spans(Traced(None)),
    ):
        pass
