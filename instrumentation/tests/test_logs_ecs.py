"""Whatever is logged becomes one line that parses back, within its bounds and without secrets."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from taskscope.context import RequestContext, current_request
from taskscope.logs.ecs import FIELD_BYTES, LINE_BYTES, EcsEncoder, ExcInfo, timestamp
from taskscope.logs.fields import FIELDS

ENCODER = EcsEncoder(
    service_name="taskapi",
    service_version="1.2.3",
    environment="test",
    instance="one",
    now=lambda: 1_764_000_000_123_456_789,
)


def document(event: dict[str, object], *, exc_info: ExcInfo | None = None) -> dict[str, object]:
    line = ENCODER.line(event, level="info", logger="app", exc_info=exc_info)
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def raised(error: Exception) -> ExcInfo:
    hidden = "local" + "value"
    with pytest.raises(type(error)) as caught:
        raise error
    assert hidden
    return caught.type, caught.value, caught.tb


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.builds(object)
    | st.decimals()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters()), inner, max_size=5)
    ),
    max_leaves=15,
)
_KEYS = st.text(st.characters(), max_size=20) | st.sampled_from(sorted(FIELDS))


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=12))
def test_any_event_is_exactly_one_line_that_parses_back(event: dict[str, object]) -> None:
    line = ENCODER.line(event, level="info", logger="app")
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert len(line) <= LINE_BYTES
    text = line.decode("utf-8")
    assert len(text[:-1].splitlines()) == 1
    assert set(json.loads(text)) <= set(FIELDS)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "x" * 10**8},
        {str(n): n for n in range(10**5)},
        {f"k{n}": '"' * 4000 for n in range(200)},
        {"event": "\x00" * 50_000, "a": ["é" * 5000] * 500},
        dict.fromkeys(FIELDS, '"' * 5000),
    ],
    ids=["text", "keys", "quotes", "control", "known"],
)
def test_an_enormous_event_is_cut_to_a_line_with_a_mark(event: dict[str, object]) -> None:
    line = ENCODER.line(event, level="info", logger="app")
    assert len(line) <= LINE_BYTES
    assert json.loads(line)["labels"]["truncated"] is True


def test_of_a_million_keys_only_the_first_are_looked_at() -> None:
    event = {"event": "all", **dict.fromkeys(map(str, range(1_000_000)), 1)}
    began = time.thread_time()
    labels = document(event)["labels"]
    assert time.thread_time() - began < 0.5
    assert isinstance(labels, dict)
    assert labels["truncated"] is True
    assert 200 < len(labels) < 300


def test_the_line_says_who_wrote_it_and_when() -> None:
    found = document({"event": "task created"})
    assert found == {
        "@timestamp": "2025-11-24T16:00:00.123456Z",
        "log.level": "info",
        "message": "task created",
        "ecs.version": "8.17.0",
        "log.logger": "app",
        "service.name": "taskapi",
        "service.version": "1.2.3",
        "service.environment": "test",
        "service.node.name": "one",
        "event.dataset": "taskapi",
        "process.pid": found["process.pid"],
    }


def test_a_time_has_microseconds_even_when_they_are_none() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"


def test_known_fields_stay_at_the_top_and_others_go_under_labels() -> None:
    found = document(
        {"event": "x", "http.response.status_code": 200, "task_id": 7, "a.b": {"c": 1}}
    )
    assert found["http.response.status_code"] == 200
    assert found["labels"] == {"task_id": 7, "a.b": {"c": 1}}


def test_a_known_field_of_the_wrong_type_goes_under_labels() -> None:
    found = document({"event": "x", "http.response.status_code": "200", "user.id": {"a": 1}})
    assert found["labels"] == {"http.response.status_code": "200", "user.id": {"a": 1}}


def test_a_call_cannot_set_what_the_chain_sets() -> None:
    found = document(
        {"event": "x", "trace.id": "forged", "service.name": "other", "labels": {"a": 1}}
    )
    assert "trace.id" not in found
    assert found["service.name"] == "taskapi"
    assert found["labels"] == {"trace.id": "forged", "service.name": "other", "labels": {"a": 1}}


def test_a_users_text_is_cut_at_two_kibibytes() -> None:
    found = document({"event": "x", "note": "é" * 5000})
    labels = found["labels"]
    assert isinstance(labels, dict)
    assert len(labels["note"].encode()) <= FIELD_BYTES
    assert labels["truncated"] is True


def test_a_new_line_in_a_value_forges_nothing() -> None:
    line = ENCODER.line(
        {"event": 'x\n{"message":"forged"}', "k\u2028": "\x1b[2J\x85"}, level="info", logger="app"
    )
    assert line.count(b"\n") == 1
    assert "\\\\x1b[2J\\\\x85" in line.decode()


def test_an_exception_has_type_message_and_frames_without_locals() -> None:
    found = document({"event": "failed"}, exc_info=raised(ValueError("token=abcdef")))
    assert found["error.type"] == "builtins.ValueError"
    assert found["error.message"] == "token=[redacted]"
    stack = found["error.stack_trace"]
    assert isinstance(stack, str)
    assert "test_logs_ecs.py" in stack
    assert "localvalue" not in stack
    assert "abcdef" not in stack


def test_an_exception_whose_text_fails_is_logged_all_the_same() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    found = document({"event": "failed"}, exc_info=raised(BrokenError()))
    assert found["error.message"] == "[unreadable]"


def test_a_secret_is_hidden_by_name_and_by_shape_unless_asked_not_to() -> None:
    event: dict[str, object] = {"event": "login", "password": "abc", "url": "http://a:b1c2@h/"}
    assert document(event)["labels"] == {"password": "[redacted]", "url": "http://a:[redacted]@h/"}
    open_encoder = EcsEncoder(
        service_name="s", service_version="1", environment="e", instance="i", redact=False
    )
    assert b"b1c2" in open_encoder.line(event, level="info", logger="app")


def test_a_secret_that_a_cut_would_halve_is_hidden() -> None:
    for before in range(FIELD_BYTES - 40, FIELD_BYTES):
        text = "x" * before + " http://user:needle-needle-needle@host/"
        assert b"needle" not in ENCODER.line({"event": "x", "k": text}, level="info", logger="app")


def test_a_line_within_a_request_names_it() -> None:
    token = current_request.set(
        RequestContext(
            request_id="a" * 32,
            method="GET",
            path="/tasks/7",
            route="/tasks/{id}",
            client_request_id="mine",
            trace_id="b" * 32,
            span_id="c" * 16,
        )
    )
    try:
        found = document({"event": "x"})
    finally:
        current_request.reset(token)
    assert found["http.request.id"] == "a" * 32
    assert found["http.route"] == "/tasks/{id}"
    assert found["trace.id"] == "b" * 32
    assert found["span.id"] == "c" * 16
    assert found["labels"] == {"client_request_id": "mine"}


def test_a_line_within_a_span_bears_its_ids() -> None:
    with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
        found = document({"event": "x"})
    assert found["trace.id"] == f"{span.get_span_context().trace_id:032x}"
    assert found["span.id"] == f"{span.get_span_context().span_id:016x}"
