"""Times as a person types them: `10m`, `1h30m`, `03:12`, `2026-11-24T03:12`."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final

from taskscope_exporters.logs.reading.conditions import QueryError

__all__ = ["moment", "spoken"]

_AGO: Final = re.compile(r"(?:\d{1,9}(?:w|d|h|m|s))+")
_PART: Final = re.compile(r"(\d+)([wdhms])")
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_FARTHEST_S: Final = 100 * 366 * 86_400


def moment(text: str, *, now: datetime, zone: tzinfo | None) -> int:
    """Microseconds since 1970 of a time that long ago, or of that day or time of day. Raises QueryError.

    now: with its zone. zone: of a time that names none; None is this machine's. A time of day that is still to come
    was yesterday's.
    """
    text = text.strip()
    found = _ago(text, now) or _of_day(text, now.astimezone(zone)) or _date(text, zone)
    if found is None:
        raise QueryError(f"{text!r} is no time; write it as 10m, 1h30m, 03:12 or 2026-11-24T03:12")
    return int(found.timestamp()) * 1_000_000 + found.microsecond


def _ago(text: str, now: datetime) -> datetime | None:
    if not _AGO.fullmatch(text):
        return None
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
    if seconds > _FARTHEST_S:
        raise QueryError(f"{text!r} is before the first line of any service; write a shorter time")
    return now - timedelta(seconds=seconds)


def _of_day(text: str, now: datetime) -> datetime | None:
    with suppress(ValueError):
        if ":" in text and "-" not in text and "T" not in text:
            found = datetime.combine(now.date(), time.fromisoformat(text))
            found = found.replace(tzinfo=found.tzinfo or now.tzinfo)
            return found if found <= now else found - timedelta(days=1)
    return None


def _date(text: str, zone: tzinfo | None) -> datetime | None:
    with suppress(ValueError, OverflowError):
        if "-" in text:
            found = datetime.fromisoformat(text)
            if found.tzinfo is None:
                found = found.replace(tzinfo=zone) if zone else found.astimezone()
            return found.astimezone(UTC)
    return None


def spoken(seconds: float) -> str:
    """An age in words, with its largest unit: `2 s`, `5 min`, `3 h`, `4 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
