"""Numbers and times as the page says them. Pure; one spelling for screen, test and chart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["clock", "duration", "percent", "plain", "rate", "zone"]

_SIGNIFICANT: Final = 3
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


def _digits(value: float, most: int = 2) -> str:
    """Three significant digits, at most `most` decimals, with a comma between thousands."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    decimals = max(0, min(most, _SIGNIFICANT - whole))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate(per_second: float) -> str:
    """`12.3/s`."""
    return f"{_digits(per_second)}/s"


def duration(seconds: float) -> str:
    """`45 ms` below a second, `1.25 s` above."""
    return f"{_digits(seconds * 1000, 1)} ms" if seconds < 1 else f"{_digits(seconds)} s"


def percent(ratio: float) -> str:
    """`0.02 %`; what is not nothing is never shown as nothing: `< 0.01 %`."""
    if 0 < ratio < 0.0001:
        return "< 0.01 %"
    return f"{_digits(ratio * 100)} %"


def zone(name: str | None) -> tzinfo:
    """The reader's time zone, or UTC where the browser names none that is known."""
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def clock(time: float, where: tzinfo) -> str:
    """`24 Nov 2026, 08:31:15 UTC`, from seconds since 1970."""
    return f"{datetime.fromtimestamp(time, where):%d %b %Y, %H:%M:%S %Z}".lstrip("0")


def plain(text: str) -> str:
    """`text` as Markdown that shows exactly these characters: no link, picture, formula or colour comes of it."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
