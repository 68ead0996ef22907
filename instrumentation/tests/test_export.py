"""What leaves as traces: no secret, no exception into the exporter's thread, every failure counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.metrics.instruments import Instruments
from taskscope.redaction import DEFAULT, Redaction
from taskscope.testing.metrics import isolated, value
from taskscope.tracing.export import SafeExporter, redacted

NEEDLE = "hunter2-needle"


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


def _span() -> ReadableSpan:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    span = provider.get_tracer("test").start_span("query")
    span.set_attribute("db.password", NEEDLE)
    span.set_attribute("db.statement", f"connect to postgresql://app:{NEEDLE}@db/tasks")
    span.set_attribute("words", ["plain", f"token={NEEDLE}"])
    span.set_attribute("rows", 7)
    refusal = OSError(f"cannot connect: postgresql://app:{NEEDLE}@db/tasks")
    span.record_exception(refusal)
    span.set_status(StatusCode.ERROR, str(refusal))
    span.end()
    return memory.get_finished_spans()[0]


def test_secrets_are_gone_from_attributes_events_and_status() -> None:
    span = _span()
    assert NEEDLE in span.to_json()
    assert NEEDLE not in redacted(span, DEFAULT).to_json()


def test_all_else_of_the_span_is_as_it_was() -> None:
    before = _span()
    after = redacted(before, DEFAULT)
    assert (after.name, after.context, after.parent, after.kind) == (
        before.name,
        before.context,
        before.parent,
        before.kind,
    )
    assert (after.start_time, after.end_time) == (before.start_time, before.end_time)
    assert (after.attributes or {})["rows"] == 7
    assert [event.name for event in after.events] == ["exception"]
    assert after.status.status_code is before.status.status_code


class Answering(SpanExporter):
    """Answers what it was told to; an exception is raised."""

    def __init__(self, answer: SpanExportResult | Exception) -> None:
        self._answer = answer
        self.sent: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if isinstance(self._answer, Exception):
            raise self._answer
        self.sent.extend(spans)
        return self._answer


def test_spans_that_were_sent_count_as_no_error(instruments: Instruments) -> None:
    inner = Answering(SpanExportResult.SUCCESS)
    exporter = SafeExporter(lambda: inner, redact=DEFAULT, failed=instruments.failed)
    assert exporter.export([_span()]) is SpanExportResult.SUCCESS
    assert NEEDLE not in inner.sent[0].to_json()
    assert value(instruments.registry, LIBRARY_ERRORS) == 0


@pytest.mark.parametrize("answer", [SpanExportResult.FAILURE, RuntimeError("planted")])
def test_a_failure_of_the_exporter_is_counted_and_not_raised(
    instruments: Instruments, answer: SpanExportResult | Exception
) -> None:
    inner = Answering(answer)
    exporter = SafeExporter(lambda: inner, redact=DEFAULT, failed=instruments.failed)
    assert exporter.export([_span()]) is SpanExportResult.FAILURE
    assert value(instruments.registry, LIBRARY_ERRORS, component="tracing") == 1


def test_a_span_that_cannot_be_redacted_is_not_sent(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Redaction, _: str) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.redaction.rules.Redaction.text", broken)
    inner = Answering(SpanExportResult.SUCCESS)
    exporter = SafeExporter(lambda: inner, redact=DEFAULT, failed=instruments.failed)
    assert exporter.export([_span()]) is SpanExportResult.FAILURE
    assert inner.sent == []


def test_an_exporter_that_cannot_be_made_is_counted_and_made_the_next_time(
    instruments: Instruments,
) -> None:
    inner = Answering(SpanExportResult.SUCCESS)
    made = iter([None, inner])

    def make() -> SpanExporter:
        found = next(made)
        if found is None:
            raise RuntimeError("planted")
        return found

    exporter = SafeExporter(make, redact=DEFAULT, failed=instruments.failed)
    assert exporter.export([_span()]) is SpanExportResult.FAILURE
    assert value(instruments.registry, LIBRARY_ERRORS, component="tracing") == 1
    assert exporter.export([_span()]) is SpanExportResult.SUCCESS
    assert len(inner.sent) == 1


def test_a_process_that_was_forked_has_an_exporter_of_its_own(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Answering] = []

    def make() -> SpanExporter:
        made.append(Answering(SpanExportResult.SUCCESS))
        return made[-1]

    exporter = SafeExporter(make, redact=DEFAULT, failed=instruments.failed)
    exporter.export([_span()])
    exporter.export([_span()])
    monkeypatch.setattr("taskscope.tracing.export.os.getpid", lambda: 1)
    exporter.export([_span()])
    assert [len(each.sent) for each in made] == [2, 1]


def test_redaction_can_be_switched_off(instruments: Instruments) -> None:
    inner = Answering(SpanExportResult.SUCCESS)
    SafeExporter(lambda: inner, redact=None, failed=instruments.failed).export([_span()])
    assert NEEDLE in inner.sent[0].to_json()
