"""`import taskscope`: what it offers and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import taskscope


@pytest.mark.parametrize("name", taskscope.__all__)
def test_every_name_of_the_face_is_there(name: str) -> None:
    assert getattr(taskscope, name).__name__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'instruments_'"):
        taskscope.instruments_  # type: ignore[attr-defined] # noqa: B018


def test_declaring_metrics_loads_nothing_of_the_runtime() -> None:
    code = (
        "import sys, taskscope, taskscope.catalogue as c; c.Catalogue(service='a'); taskscope.Metric;"
        "print([m for m in ('prometheus_client', 'opentelemetry', 'structlog', 'fastapi', 'starlette',"
        " 'sqlalchemy', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_the_runtime_is_there_without_fastapi_and_sqlalchemy_loaded() -> None:
    code = (
        "import sys, taskscope.wiring; "
        "print([m for m in ('fastapi', 'starlette', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
