"""A real Prometheus that remembers a day of the task API, for the tests of the page."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from taskscope.testing.engines import free_port, running
from taskscope.testing.engines.prometheus import prometheus, promtool

STEP_S = 30
HOUR_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the Prometheus at `url` was fed: the day up to `end`, in seconds since 1970."""

    url: str
    end: float


def openmetrics(start: int, end: int) -> str:
    """A quiet night, a busy noon and one bad quarter of an hour, as a text that promtool backfills."""
    values = {
        'service:http_requests:rate5m{service="taskapi"}': lambda day: 900 + 640 * _wave(day),
        'service:http_request_duration_seconds:p95_rate5m{service="taskapi"}': lambda day: (
            0.081 + 0.06 * _wave(day) + 0.1 * _bad(day)
        ),
        'service:http_request_errors:ratio_rate5m{service="taskapi"}': lambda day: (
            0.0002 + 0.0001 * _wave(day) + 0.0012 * _bad(day)
        ),
        'service:db_client_connection_utilization:ratio{service="taskapi"}': lambda day: (
            0.35 + 0.25 * _wave(day) + 0.2 * _bad(day)
        ),
        'slo:error_budget_remaining:ratio{service="taskapi",slo="availability"}': lambda day: (
            0.81 - 0.06 * day
        ),
        'slo:error_budget_remaining:ratio{service="taskapi",slo="latency"}': lambda day: (
            0.96 - 0.02 * day
        ),
        'up{instance="127.0.0.1:8001",job="taskapi"}': lambda _: 1.0,
        'up{instance="127.0.0.1:8002",job="taskapi"}': lambda _: 1.0,
    }
    lines: list[str] = []
    family = ""
    for series, value in values.items():
        name = series.partition("{")[0]
        if name != family:
            lines.append(f"# TYPE {name} gauge")
            family = name
        lines += [
            f"{series} {value((at - start) / (end - start)):.6g} {at}"
            for at in range(start, end, STEP_S)
        ]
    return "\n".join([*lines, "# EOF", ""])


def _wave(day: float) -> float:
    return math.sin(2 * math.pi * (day + 0.55)) + 0.06 * math.sin(90 * day)


def _bad(day: float) -> float:
    return math.exp(-(((day - 0.89) / 0.008) ** 2))


@pytest.fixture(scope="session")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A Prometheus that holds a day of data which reaches a little beyond this moment."""
    end = int(time.time()) // STEP_S * STEP_S + 1200
    yield from _serving(tmp_path_factory.mktemp("backfilled"), end=end)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A Prometheus whose data ended two hours ago."""
    end = int(time.time()) // STEP_S * STEP_S - 2 * HOUR_S
    yield from _serving(tmp_path_factory.mktemp("stopped"), end=end)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A Prometheus that has never heard of any service."""
    yield from _serving(tmp_path_factory.mktemp("blank"), end=None)


def _serving(folder: Path, *, end: int | None) -> Iterator[Day]:
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text("global:\n  scrape_interval: 10s\n")
    spec = prometheus(folder, port=port, config=config, retention="30d")
    if end is not None:
        text = folder / "day.om"
        text.write_text(openmetrics(end - 24 * HOUR_S, end))
        made = promtool(
            "tsdb", "create-blocks-from", "openmetrics", text, folder / "data", "--quiet"
        )
        assert made.returncode == 0, made.stderr
    with running(spec):
        yield Day(url=f"http://127.0.0.1:{port}", end=float(end or 0))
