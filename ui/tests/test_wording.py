"""Numbers and times as the page says them."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope_ui.wording import clock, duration, percent, plain, rate, zone


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0/s"), (0.034, "0.03/s"), (12.34, "12.3/s"), (999.9, "1,000/s"), (12345.6, "12,346/s")],
)
def test_a_rate_has_three_digits_and_its_unit(value: float, shown: str) -> None:
    assert rate(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0048, "4.8 ms"), (0.3, "300 ms"), (1.0, "1 s"), (1.256, "1.26 s"), (0.9999, "1,000 ms")],
)
def test_a_duration_is_in_milliseconds_below_a_second(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(0, "0 %"), (0.001, "0.1 %"), (0.5, "50 %"), (1.374, "137 %"), (0.00001, "< 0.01 %")],
)
def test_a_share_that_is_not_nothing_is_never_shown_as_nothing(ratio: float, shown: str) -> None:
    assert percent(ratio) == shown


def test_a_time_is_told_in_the_readers_zone() -> None:
    assert clock(1_795_506_900, zone("Asia/Tokyo")) == "24 Nov 2026, 16:55:00 JST"


@pytest.mark.parametrize("name", [None, "", "No/Where", "../../etc/passwd", "a" * 300, "\0"])
def test_a_zone_that_nobody_knows_is_utc(name: str | None) -> None:
    assert zone(name) is UTC


@given(st.text(alphabet=r"[]()<>!*_`$:#|~\{}ab&", max_size=40))
def test_plain_text_holds_no_mark_that_markdown_would_read(text: str) -> None:
    escaped = plain(text)
    unescaped = escaped.replace("\\\\", "")
    bare = [
        at
        for at, sign in enumerate(unescaped)
        if sign in "[]()<>!*_`$:#|~{}&" and (at == 0 or unescaped[at - 1] != "\\")
    ]
    assert bare == []
