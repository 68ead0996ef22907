"""An exception as a line tells it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TypeAlias, cast

__all__ = ["ExcInfo", "exception_of"]

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]


def exception_of(found: object) -> ExcInfo | None:
    """What `exc_info=` stands for: an exception, a triple of them, or true for the one being handled."""
    if isinstance(found, BaseException):
        return type(found), found, found.__traceback__
    current = found if isinstance(found, tuple) and len(found) == 3 else None
    if current is None and found:
        current = sys.exc_info()
    if current is None or not isinstance(current[1], BaseException):
        return None
    return cast("ExcInfo", current)
