"""For every test here: what it opened is closed at its end, or it fails and is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import structlog

_THREADS = ("taskscope-", "OtelBatch")


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """A telemetry that a test forgot would take the lines of all later ones."""
    before = _open()
    yield
    left = [each for each in _open() if each not in before]
    for each in left:  # one test's fault is not the next one's
        if isinstance(each, logging.Handler):
            each.owner.close()  # type: ignore[attr-defined] # the pipeline, whose handler this is
    assert not left, f"the test left {left} open; close its telemetry, pipeline or spool"


def _open() -> list[object]:
    handlers = [each for each in logging.getLogger().handlers if _is_ours(each)]
    threads = [each for each in threading.enumerate() if each.name.startswith(_THREADS)]
    # While a pipeline is open, structlog leads to it whichever was set up last.
    route = getattr(structlog.get_config()["logger_factory"], "__self__", None)
    return [*handlers, *threads, *([route] if not handlers and _is_ours(route) else [])]


def _is_ours(each: object) -> bool:
    return type(each).__module__.startswith("taskscope.")
