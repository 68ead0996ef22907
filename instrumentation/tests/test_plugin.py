"""The pytest plugin, in a project of its own and in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_Done = subprocess.CompletedProcess[str]
DOCUMENTED = Path(__file__).parents[2] / "docs/testing.md"
APP = """
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from taskscope import Catalogue, Kind, Label, Metric, Settings, counted, get_logger, instrument

ORDERS = Metric(name="shop.orders", kind=Kind.COUNTER, unit="{order}", help="Orders.", owner="shop",
                labels=(Label("city", cap=2, bounded_by="the cities"),))
STRAY = Metric(name="shop.stray", kind=Kind.COUNTER, unit="{order}", help="Stray.", owner="shop")

@counted(STRAY)
def stray():
    return 1

@counted(ORDERS, city="Genf")
def helper():
    return 1

@pytest.fixture
def taskscope_app(tmp_path):
    app = FastAPI()
    telemetry = instrument(app, service_name="shop", service_version="1", settings=Settings(spool=tmp_path / "s"),
                           catalogue=Catalogue(service="shop", metrics=(ORDERS,)))
    get_logger("shop").info("made")

    @app.post("/orders/{city}")
    def order(city: str):
        telemetry.counter(ORDERS).inc(city=city)
        get_logger("shop").info("ordered", city=city)
        return city

    return app

@pytest.fixture
def client(taskscope_app):
    with TestClient(taskscope_app) as client:
        yield client
"""

GOOD = (
    APP
    + """
def test_ten_lines(client, taskscope_metrics, taskscope_spans, taskscope_lines, taskscope_conformance):
    client.post("/orders/Bern")
    assert taskscope_metrics.change(ORDERS, city="Bern") == 1
    assert [span.name for span in taskscope_spans()] == ["POST /orders/{city}"]
    assert [line["message"] for line in taskscope_lines("shop")] == ["ordered"]
    assert "request served" in [line["message"] for line in taskscope_lines()]
    taskscope_conformance().check(moved=True)

def test_each_test_begins_anew(client, taskscope_metrics, taskscope_spans, taskscope_lines):
    assert (taskscope_metrics.change(ORDERS), taskscope_spans(), taskscope_lines()) == (0, [], [])

def test_a_decorated_function_is_measured_by_the_app_of_the_test(taskscope_metrics):
    helper()
    assert taskscope_metrics.change(ORDERS, city="Genf") == 1

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_so_it_is_in_async_tests_and_while_other_apps_are_alive(tmp_path, taskscope_metrics):
    other = instrument(FastAPI(), service_name="shop", service_version="1", settings=Settings(spool=tmp_path / "o"))
    helper()
    assert taskscope_metrics.change(ORDERS, city="Genf") == 1
    other.close()
"""
)

BAD = (
    APP
    + """
def test_label(client, taskscope_conformance):
    for city in ("Bern", "Oslo", "Rom"):
        client.post(f"/orders/{city}")
    taskscope_conformance().check()

def test_moved(client, taskscope_metrics):
    with taskscope_metrics.moved(ORDERS, by=2):
        client.post("/orders/Bern")

def test_undeclared(taskscope_telemetry):
    stray()
"""
)

NO_APP = """
def test_nothing(taskscope_metrics):
    pass
"""

PLAIN_APP = """
import pytest

@pytest.fixture
def taskscope_app():
    return object()

def test_nothing(taskscope_metrics):
    pass
"""

COST = """
import sys, time, pytest, _pytest.fixtures
began = time.perf_counter()
import taskscope.testing.plugin
cost = time.perf_counter() - began
heavy = [m for m in ("prometheus_client", "opentelemetry", "structlog", "fastapi", "msgspec", "asyncio")
         if m in sys.modules]
print(f"{cost * 1000:.3f}", heavy)
"""


def _pytest(folder: Path, *texts: str, options: tuple[str, ...] = ()) -> _Done:
    for number, text in enumerate(texts):
        (folder / f"test_shop_{number}.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_ten_lines_hold_metrics_spans_lines_and_conformance_and_so_does_the_documents_example(
    tmp_path: Path,
) -> None:
    (documented,) = re.findall(r"```python\n(.*?)```", DOCUMENTED.read_text(), flags=re.DOTALL)
    done = _pytest(tmp_path, GOOD, documented, options=("-W", "error"))
    assert "5 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run says that has only wrong tests."""
    return _pytest(tmp_path_factory.mktemp("wrong"), BAD, NO_APP, PLAIN_APP).stdout


@pytest.mark.parametrize(
    "sentence",
    [
        "shop.orders: label city went beyond its bound",
        "shop.orders {} moved by 1, expected 2",
        "shop.stray: the catalogue of shop does not declare it",
        "write a fixture named taskscope_app that returns yours",
        "taskscope_app: object is not instrumented; return the app",
    ],
)
def test_what_is_wrong_fails_and_is_named(told: str, sentence: str) -> None:
    assert "3 failed, 2 errors" in told
    assert sentence in told


def test_every_fixture_bears_the_prefix_and_none_is_used_unasked(tmp_path: Path) -> None:
    options = ("--fixtures-per-test", "--fixtures")
    out, listed = (
        _pytest(tmp_path, "def test_it(): pass", options=(option,)).stdout for option in options
    )
    assert "taskscope" not in out
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("taskscope_")] == [
        "taskscope_app",
        "taskscope_telemetry",
        "taskscope_metrics",
        "taskscope_spans",
        "taskscope_lines",
        "taskscope_conformance",
    ]


def test_a_suite_that_uses_none_pays_less_than_five_milliseconds() -> None:
    costs = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", COST], capture_output=True, text=True, check=True, timeout=30
        )
        cost, _, heavy = done.stdout.strip().partition(" ")
        assert heavy == "[]"
        costs.append(float(cost))
    assert min(costs) < 5.0
