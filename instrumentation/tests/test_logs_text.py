"""No text can forge a line or steer a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.logs.text import cut, cut_middle, visible

_ANY = st.text(st.characters(), max_size=200)  # half surrogate pairs included


@settings(deadline=None)
@given(_ANY)
def test_nothing_that_controls_is_left(text: str) -> None:
    found = visible(text)
    assert not [sign for sign in found if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
    found.encode("utf-8")


def test_a_control_character_is_spelled_out() -> None:
    assert visible("a\x1b[31m\nb\u2028\ud800") == "a\\x1b[31m\\nb\\u2028\\ud800"


def test_a_stack_trace_keeps_its_lines() -> None:
    assert visible("a\n\tb\r\x9b", lines=True) == "a\n\tb\\r\\x9b"


@settings(deadline=None)
@given(_ANY, st.integers(min_value=0, max_value=64))
def test_a_cut_text_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    safe = visible(text)
    found = cut(safe, limit)
    assert safe.startswith(found)
    assert len(found.encode()) <= limit


def test_a_long_stack_keeps_both_ends() -> None:
    found = cut_middle("first" + "x" * 1000 + "last", 90)
    assert found.startswith("first")
    assert found.endswith("last")
    assert len(found) < 130
