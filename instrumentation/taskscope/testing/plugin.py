"""pytest plugin: fixtures for a service's metrics, spans and log lines; nothing happens until one is asked for.

A test suite overrides `taskscope_app`, and the others are about that app. Everything is imported when a fixture is
first used, so that suites which use none pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from taskscope.telemetry import Telemetry
    from taskscope.testing.conformance import Conformance
    from taskscope.testing.logs import Lines
    from taskscope.testing.metrics import Metrics


@pytest.fixture
def taskscope_app() -> object:
    """The app that the tests are about, or its Telemetry: a suite overrides this with a fixture of its own."""
    pytest.fail(
        "taskscope: no app is known; write a fixture named taskscope_app that returns yours",
        pytrace=False,
    )


@pytest.fixture
def taskscope_telemetry(taskscope_app: object) -> Iterator[Telemetry]:
    """The app's Telemetry. For the test, decorated functions are its own, and a wrong declaration is raised."""
    from taskscope.metrics.current import only
    from taskscope.testing.subject import strictly, telemetry_of

    telemetry = telemetry_of(taskscope_app)
    with only(telemetry.instruments), strictly(telemetry.instruments):
        yield telemetry


@pytest.fixture
def taskscope_metrics(taskscope_telemetry: Telemetry) -> Metrics:
    """`.change(METRIC, label="value")` is by how much the test moved it; `.value(…)` what it holds."""
    from taskscope.testing.metrics import Metrics

    return Metrics(taskscope_telemetry.registry)


@pytest.fixture
def taskscope_spans(taskscope_telemetry: Telemetry) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Called, it gives the spans that have ended since the test began."""
    from taskscope.testing.spans import captured_spans

    with captured_spans(taskscope_telemetry) as spans:
        yield spans


@pytest.fixture
def taskscope_lines(taskscope_telemetry: Telemetry) -> Lines:
    """Called, it gives the log lines that were written since the test began; with a name, that logger's."""
    from taskscope.testing.logs import Lines

    return Lines(taskscope_telemetry.settings.spool)


@pytest.fixture
def taskscope_conformance(taskscope_telemetry: Telemetry) -> Callable[[], Conformance]:
    """Called, it holds what was emitted against the catalogue: `.check()` fails naming each fault."""
    from taskscope.testing.conformance import conformance

    return lambda: conformance(taskscope_telemetry)
