"""A browser's report as a value: what is in it, or why it is refused. Nothing here has an effect."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

import msgspec

__all__ = ["MAX_ERRORS", "MAX_SECONDS", "MAX_SHIFT", "Refused", "Report", "read"]

MAX_SECONDS: Final = 60.0
"""A longer time is counted as this: no page that somebody waits for takes longer, but a sleeping laptop does."""
MAX_SHIFT: Final = 10.0
MAX_ERRORS: Final = 100

_DURATIONS: Final = {"LCP": "lcp", "INP": "inp", "FCP": "fcp", "TTFB": "ttfb"}
_SHIFT: Final = "CLS"
_ERRORS: Final = "errors"
_PAGE: Final = "route"
_NAME: Final = "name"
_VALUE: Final = "value"


class Refused(Exception):  # noqa: N818 - reads as it is meant: `raise Refused("size")`
    """For the endpoint: the report is not counted; `reason` is a value of the label of that name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one page measured. page: its path or template as sent. durations: vitals' labels and seconds."""

    page: str
    durations: tuple[tuple[str, float], ...] = ()
    shift: float | None = None
    errors: int = 0


def read(body: bytes) -> Report:
    """The report in `body`. Raises Refused; one wrong name or value refuses the whole report.

    Two forms: `{"route": "/tasks/7", "LCP": 812.5, "CLS": 0.02, "errors": 1}` with times in milliseconds, and
    `{"route": "/tasks/7", "name": "LCP", "value": 812.5}`, whose other keys do not matter.
    """
    fields = _decoded(body)
    page = fields.pop(_PAGE, "")
    if not isinstance(page, str):
        raise Refused("value")
    if _NAME in fields:
        name = fields[_NAME]
        if not isinstance(name, str):
            raise Refused("name")
        fields = {name: fields.get(_VALUE)}
    return _report(page, fields)


def _decoded(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused("syntax") from None


def _report(page: str, fields: dict[str, object]) -> Report:
    durations: list[tuple[str, float]] = []
    shift: float | None = None
    errors = 0
    for name, given in fields.items():
        if name in _DURATIONS:
            durations.append((_DURATIONS[name], min(_number(given) / 1000, MAX_SECONDS)))
        elif name == _SHIFT:
            shift = min(_number(given), MAX_SHIFT)
        elif name == _ERRORS:
            errors = int(min(_number(given), MAX_ERRORS))
        else:
            raise Refused("name")
    return Report(page=page, durations=tuple(durations), shift=shift, errors=errors)


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise Refused("value")
    try:
        number = float(given)
    except OverflowError:  # a whole number of hundreds of digits
        raise Refused("value") from None
    if not isfinite(number) or number < 0:
        raise Refused("value")
    return number
