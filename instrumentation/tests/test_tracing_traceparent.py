"""The caller's word about its trace: only what is well formed is heard, in bounded time, and nothing is logged."""

from __future__ import annotations

import logging
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.tracing.traceparent import RANDOM, SAMPLED, Remote, remote_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def _heard(*parents: str, state: tuple[str, ...] = ()) -> Remote | None:
    headers = [(b"host", b"x"), *((b"traceparent", each.encode("latin-1")) for each in parents)]
    headers += [(b"tracestate", each.encode("latin-1")) for each in state]
    return remote_of(headers)


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-01", SAMPLED),
        (f"00-{TRACE}-{SPAN}-03", SAMPLED | RANDOM),
        (f"00-{TRACE}-{SPAN}-ff", SAMPLED | RANDOM),
        (f"cc-{TRACE}-{SPAN}-01", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", SAMPLED),
    ],
)
def test_a_well_formed_parent_is_heard(parent: str, flags: int) -> None:
    assert _heard(parent) == Remote(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00_{TRACE}_{SPAN}_01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01more",
        f"cc-{TRACE}-{SPAN}-01-\x1b[31m",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 300}",
        "x" * 60_000,
    ],
)
def test_a_malformed_parent_is_as_none(parent: str) -> None:
    assert _heard(parent) is None


def test_two_parents_are_as_none() -> None:
    assert _heard(f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01") is None


def test_a_state_without_a_parent_is_as_none() -> None:
    assert _heard(state=("vendor=1",)) is None


def test_the_state_of_a_parent_is_heard_in_its_order() -> None:
    heard = _heard(f"00-{TRACE}-{SPAN}-01", state=("b=2, a@x=1", "", "c=3 4"))
    assert heard is not None
    assert heard.state == (("b", "2"), ("a@x", "1"), ("c", "3 4"))
    assert heard.context().trace_state.to_header() == "b=2,a@x=1,c=3 4"


@pytest.mark.parametrize(
    "state",
    [
        "A=1",
        "a",
        "a=",
        "a=1,a=2",
        "a=\x1b[31m",
        "a=1=2",
        ",".join(f"k{n}=1" for n in range(33)),
        f"a={'x' * 511}",
    ],
)
def test_a_malformed_state_is_dropped_and_the_parent_is_not(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        heard = _heard(f"00-{TRACE}-{SPAN}-01", state=(state,))
        assert heard == Remote(TRACE, SPAN, SAMPLED)
        heard.context()
    assert caplog.records == []


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_whatever_is_sent_is_none_or_well_formed(parent: str) -> None:
    heard = _heard(parent)
    assert heard is None or heard.context().is_valid


def test_reading_takes_bounded_time() -> None:
    headers = [(b"traceparent", b"-" * 1_000_000), (b"tracestate", b"a=1," * 250_000)]
    began = perf_counter()
    for _ in range(100):
        remote_of(headers)
    assert perf_counter() - began < 1.0
