"""The ordinary line straight to bytes is what the encoder would have written, or is left to the encoder."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from taskscope.context import RequestContext, current_request
from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.fields import FIELDS
from taskscope.logs.plain import MOST_KEPT, PlainLines

NOW = 1_764_000_000_123_456_789
ENCODER = EcsEncoder(
    service_name='sh"op', service_version="2.1", environment="test", instance="one", now=lambda: NOW
)
PLAIN = PlainLines(ENCODER, pid=os.getpid())


def plain(message: str, fields: dict[str, Any], level: str = "info") -> dict[str, Any] | None:
    head = PLAIN.head(level, "app", message)
    line = None if head is None else PLAIN.line(head, dict(fields))
    return None if line is None else json.loads(line)


def encoded(message: str, fields: dict[str, Any], level: str = "info") -> dict[str, Any]:
    line = ENCODER.line({**fields, "event": message}, level=level, logger="app")
    found: dict[str, Any] = json.loads(line)
    return found


TEXTS = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "u-1",
            "token=abcdef",
            "Bearer abcdefghijk",
            "4111 1111 1111 1111",
            "a\nb",
            "\x1b[31m",
            "é",
            "\ud800",
            "x" * 3000,
            '"quoted\\',
            "http://a:b@h/",
        ]
    ),
)
VALUES = st.one_of(
    TEXTS,
    st.integers(),
    st.sampled_from([4111111111111111, 10**9, -(10**9), 2**63]),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=3),
)
KEYS = st.one_of(
    st.text(max_size=70),
    st.sampled_from(["task_id", "password", "api_key", "labels", "", "event.action", "http.route"]),
    st.sampled_from(sorted(FIELDS)),
).filter(lambda key: key not in ("event", "exc_info"))


@given(message=TEXTS, fields=st.dictionaries(KEYS, VALUES, max_size=8))
def test_it_equals_the_encoders_line_or_is_left_to_it(message: str, fields: dict[str, Any]) -> None:
    found = plain(message, fields)
    assert found is None or found == encoded(message, fields)


ORDINARY: dict[str, Any] = {
    "task_id": 7,
    "user": "u-1",
    "queue": "default",
    "wait_s": 0.25,
    "retried": False,
    "nothing": None,
    "event.action": "created",
}


def test_an_ordinary_line_is_not_left_to_the_encoder() -> None:
    assert plain("task created", ORDINARY) == encoded("task created", ORDINARY)


@pytest.mark.parametrize(
    "value",
    ["token=abcdef", "a\nb", "x" * 3000, 4111111111111111, float("nan"), [1], object(), "\ud800"],
)
def test_what_is_not_plain_is_left_to_the_encoder(value: object) -> None:
    assert plain("x", {"k": value}) is None


@pytest.mark.parametrize("key", ["password", "exc_info", "event", "x" * 100, "a\nb", ""])
def test_a_key_that_hides_or_means_something_is_left_to_the_encoder(key: str) -> None:
    assert plain("x", {key: "value"}) is None


def test_within_a_request_and_a_span_it_says_the_same() -> None:
    request = RequestContext(
        request_id="a" * 32,
        method="GET",
        path="/tasks/7",
        route="/tasks/{id}",
        client_request_id="mine",
        trace_id="b" * 32,
        span_id="c" * 16,
        user="d" * 16,
    )
    token = current_request.set(request)
    try:
        assert plain("x", ORDINARY) == encoded("x", ORDINARY)
        with TracerProvider().get_tracer("t").start_as_current_span("work"):
            assert plain("x", ORDINARY) == encoded("x", ORDINARY)
            assert plain("x", {}) == encoded("x", {})
    finally:
        current_request.reset(token)


def test_a_caller_cannot_put_a_secret_into_it_by_its_own_id() -> None:
    request = RequestContext(
        request_id="a" * 32, method="GET", path="/", client_request_id="token=abcdef"
    )
    token = current_request.set(request)
    try:
        assert plain("x", {}) is None
    finally:
        current_request.reset(token)


def test_what_is_remembered_is_bounded() -> None:
    lines = PlainLines(ENCODER, pid=1)
    head = lines.head("info", "app", "x")
    assert head is not None
    for number in range(2 * MOST_KEPT):
        lines.line(head, {f"k{number}": f"v{number}"})
    assert len(lines._texts) <= MOST_KEPT
    assert len(lines._labels) <= MOST_KEPT


def test_a_text_that_hides_something_is_not_remembered() -> None:
    lines = PlainLines(ENCODER, pid=1)
    head = lines.head("info", "app", "x")
    assert head is not None
    assert lines.line(head, {"k": "token=abcdef"}) is None
    assert "token=abcdef" not in lines._texts


def test_bound_variables_are_named_once() -> None:
    assert structlog.contextvars.STRUCTLOG_KEY_PREFIX == "structlog_"
    assert hasattr(structlog.contextvars, "_CONTEXT_VARS")
