"""What the fixtures are about: an app's telemetry, and that its instruments are strict meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from taskscope.errors import InstrumentError
from taskscope.metrics.instruments import Instruments
from taskscope.telemetry import Telemetry

__all__ = ["strictly", "telemetry_of"]


def telemetry_of(subject: object) -> Telemetry:
    """The Telemetry of an app, or itself. Raises InstrumentError where there is none."""
    if isinstance(subject, Telemetry):
        return subject
    found = getattr(getattr(subject, "state", None), "telemetry", None)
    if isinstance(found, Telemetry):
        return found
    raise InstrumentError(
        f"taskscope_app: {type(subject).__name__} is not instrumented; return the app that instrument() was given"
    )


@contextmanager
def strictly(instruments: Instruments) -> Iterator[None]:
    """Inside the block wrong labels and undeclared metrics are raised instead of counted."""
    before = instruments.strict
    instruments.strict = True
    try:
        yield
    finally:
        instruments.strict = before
