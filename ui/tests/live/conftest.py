"""The whole stack, started once as a user starts it: `taskscope up` in a process of its own.

The files of this folder run in the order of their names on that one stack: numbers first, while they are exact,
then boards, page, alerts, breakages, and its end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskscope.testing import waiting
from taskscope_ui.stack import state

PROJECT = Path(__file__).parents[3]
until = partial(waiting.until, every_s=0.5)  # each asks a whole stack


@dataclass(kw_only=True)
class Live:
    """A running stack. started: when all parts had come up, on the monotonic clock."""

    folder: Path
    process: subprocess.Popen[str]
    started: float = 0.0
    client: httpx2.Client = field(
        default_factory=lambda: httpx2.Client(timeout=10, trust_env=False)
    )

    @property
    def state(self) -> state.StackState:
        found = state.read(self.folder)
        assert found is not None
        return found

    def address(self, name: str) -> str:
        return self.state.addresses[name].rstrip("/")

    def part(self, name: str) -> state.PartRecord:
        found = self.state.part(name)
        assert found is not None, name
        return found

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        parameters = {"query": expression} | ({"time": f"{at:.3f}"} if at is not None else {})
        answer = self.client.get(
            f"{self.address('prometheus')}/api/v1/query", params=parameters
        ).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def value(self, expression: str, at: float | None = None) -> float | None:
        rows = self.query(expression, at)
        return float(rows[0]["value"][1]) if rows else None

    def search(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        """Ten of the stored lines that match."""
        return list(self._ask({"query": query, "size": 10}).get("hits", ()))

    def count(self, query: dict[str, Any]) -> int:
        """How many stored lines match."""
        return int(
            self._ask({"query": query, "size": 0, "track_total_hits": True})["total"]["value"]
        )

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        word = (self.folder / "secrets" / "elasticsearch_reader").read_text().strip()
        url = f"{self.address('elasticsearch')}/logs-taskapi-local/_search"
        answer = self.client.post(url, json=body, auth=httpx2.BasicAuth("reader", word))
        if answer.status_code == 404:  # made by the first line
            return {"hits": [], "total": {"value": 0}}
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["hits"])

    def alerts(self) -> set[tuple[str, str]]:
        """Name and severity of what Alertmanager holds."""
        found = self.client.get(f"{self.address('alertmanager')}/api/v2/alerts").json()
        return {(a["labels"]["alertname"], a["labels"].get("severity", "")) for a in found}

    def plant(self, *, errors: float) -> None:
        """From now on this share of the requests fails."""
        Path(self.state.traffic_control).write_text(json.dumps({"errors": errors}))

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """`taskscope doctor` on this stack, as a user runs it."""
        return taskscope("doctor", "--folder", str(self.folder))


def taskscope(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskscope_ui", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def drive(*words: str) -> list[str]:
    """The command that sends traffic."""
    return [sys.executable, "-m", "taskscope_taskapi.traffic", *words]


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The stack without its own traffic, with every part ready."""
    folder = tmp_path_factory.mktemp("stack") / "state"
    output = (folder.parent / "up.txt").open("w")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "taskscope_ui",
            "up",
            "--no-traffic",
            "--for",
            "1800",
            "--folder",
            str(folder),
        ],
        cwd=PROJECT,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    stack = Live(folder=folder, process=process)
    try:
        until(lambda: _all_ready(stack), within_s=240)
        stack.started = time.monotonic()
        yield stack
    finally:
        stack.client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        output.close()
        print((folder.parent / "up.txt").read_text())  # noqa: T201 - shown where a test fails


def _all_ready(stack: Live) -> bool:
    assert stack.process.poll() is None, "taskscope up has ended"
    found = state.read(stack.folder)
    if found is None:
        return False
    failed = [part.name for part in found.parts if part.phase in ("failed", "down")]
    assert not failed, failed
    wanted = [part for part in found.parts if part.name != "traffic"]
    lacking = [f"{part.name}: {part.detail}" for part in wanted if part.phase == "absent"]
    assert not lacking, lacking
    return all(part.phase in ("ready", "done") for part in wanted)


@pytest.fixture(scope="session")
def counted(live: Live) -> dict[str, Any]:
    """What exactly 300 requests came to, as their sender counted them; nothing else was sent before."""
    words = drive("--url", live.address("api"), "--requests", "300", "--rate", "60", "--seed", "7")
    sent = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(sent.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def steady(live: Live, counted: dict[str, Any]) -> Iterator[float]:
    """Seeded traffic of 12 requests a second goes on; the value is when it began, on the monotonic clock."""
    control = live.state.traffic_control
    words = drive(
        "--url",
        live.address("api"),
        "--rate",
        "12",
        "--seed",
        "11",
        "--for",
        "1500",
        "--control",
        control,
    )
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield time.monotonic()
    finally:
        process.terminate()
        process.wait(30)
