"""The documents' examples are run as they stand, and the table of settings names every one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from taskscope.settings import _VARIABLES
from taskscope.testing.logs import read_lines
from taskscope.testing.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "instrumentation.md"
EXAMPLES = [
    (section.partition("\n")[0], code)
    for section in PAGE.read_text().split("\n## ")[1:]
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
]


def example(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    code = dict(EXAMPLES)[title]
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"{PAGE.name}: {title}", "exec"), namespace)
    return namespace


def test_nothing_to_a_scraped_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example("From nothing to a scraped metric", tmp_path, monkeypatch)
    (promised,) = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    with TestClient(found["app"]) as client:
        assert client.get("/hello/world").json() == "hello world"
        assert promised in client.get("/metrics").text.splitlines()


def test_metrics_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example("Metrics of your own", tmp_path, monkeypatch)
    with TestClient(found["app"]) as client:
        assert client.post("/orders/2").json() == 6
        lines = client.get("/metrics").text.splitlines()
    assert 'shop_orders_total{payment="card"} 1.0' in lines
    assert 'shop_pricing_duration_seconds_count{outcome="ok"} 1.0' in lines
    assert "shop_quotes_total 1.0" in lines
    assert "shop_pricing_under_way 0.0" in lines


def test_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example("Who asks, and code that runs elsewhere", tmp_path, monkeypatch)
    with TestClient(found["app"]) as client:
        client.get("/report")

        def told() -> dict[str, Any]:
            lines = {line["message"]: line for line in read_lines(Path(".taskscope/spool"))}
            return lines if {"report made", "request served"} <= set(lines) else {}

        lines = until(told, within_s=5, saying="both lines are in the spool")
    report, served = lines["report made"], lines["request served"]
    for field in ("http.request.id", "http.route", "trace.id", "user.hash"):
        assert report[field] == served[field]
    assert "ada@" not in str(lines)


def test_what_the_service_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example("What the service depends on", tmp_path, monkeypatch)
    with TestClient(found["app"]) as client:
        assert "sendBeacon" in client.get("/vitals.js").text
        assert client.post("/vitals", content="{").status_code == 400
        assert 'browser_beacon_refused_total{reason="syntax"}' in client.get("/metrics").text


def test_in_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example("In tests", tmp_path, monkeypatch)
    with TestClient(found["app"]) as client:
        found["check"](client)


def test_no_example_is_forgotten() -> None:
    assert [title for title, _ in EXAMPLES] == [
        "From nothing to a scraped metric",
        "Metrics of your own",
        "Who asks, and code that runs elsewhere",
        "What the service depends on",
        "In tests",
    ]


def test_every_setting_is_in_the_table() -> None:
    text = PAGE.read_text().replace("…_TOKEN_FILE", "TASKSCOPE_METRICS_TOKEN_FILE")
    assert [name for name in _VARIABLES if f"`{name}`" not in text] == []
