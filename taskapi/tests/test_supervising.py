"""Several workers of one instance: one port, one answer to Prometheus, and a supervisor that replaces the dead."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from taskscope.testing.engines import free_port
from taskscope.testing.logs import read_lines

from .test_main import refused, started

TASKS = "/api/v1/tasks"
SHARED = "TASKSCOPE_MULTIPROCESS_DIR"


def scraped(port: int) -> dict[str, float]:
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(number) for name, number in pairs}


def refusals(port: int) -> float:
    return sum(
        number
        for name, number in scraped(port).items()
        if name.startswith("http_server_request_duration_seconds_count") and '"401"' in name
    )


def come(port: int, number: int) -> None:
    for _ in range(number):  # a new connection each, so that both workers have some
        assert httpx2.get(f"http://127.0.0.1:{port}{TASKS}", trust_env=False).status_code == 401


def wait_for(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_workers_answer_prometheus_as_one_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, port, "--workers", "2", **{SHARED: str(tmp_path / "w")}) as parent:
        wait_for(lambda: scraped(port)["taskscope_multiprocess_workers"] == 2)
        come(port, 20)
        wait_for(lambda: refusals(port) == 20)  # one rendering serves all scrapes of a second
        children = children_of(parent.pid)
        os.kill(min(children), signal.SIGKILL)
        wait_for(lambda: len(children_of(parent.pid) - children) == 1)
        wait_for(lambda: scraped(port)["taskscope_multiprocess_workers"] == 2)
        come(port, 20)
        wait_for(lambda: refusals(port) == 40)
        open_tasks = scraped(port)['taskapi_tasks_open{status="todo"}']
        parent.send_signal(signal.SIGTERM)
        _, said = parent.communicate(timeout=20)
    assert open_tasks == 0
    assert parent.returncode == 0
    assert "died" in said
    assert "Traceback" not in said


def children_of(pid: int) -> set[int]:
    """The living workers; multiprocessing's own tracker of resources is none."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if parent == pid and "spawn_main" in words:
            found.add(int(entry.name))
    return found


def test_workers_without_a_folder_of_their_own_are_refused(tmp_path: Path) -> None:
    (told,) = refused(tmp_path, "--workers", "2")
    assert SHARED in told


def test_workers_that_cannot_start_end_the_instance(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        "--workers",
        "2",
        DATABASE_URL="postgresql+asyncpg://u:hunter2@127.0.0.1:1/x",
        **{SHARED: str(tmp_path / "w")},
    )
    assert said[-1] == "taskapi: a worker did not start; read the log"
    assert "hunter2" not in "".join(said)
    last = read_lines(tmp_path / ".taskscope" / "spool")[-1]
    assert "DatabaseUnavailable" in str(last["error.type"])


def test_settings_that_only_a_worker_reads_are_told_once_and_end_the_instance(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("short")
    said = refused(
        tmp_path, "--workers", "2", JWT_SECRET_FILE=str(key), **{SHARED: str(tmp_path / "w")}
    )
    assert any("TASKAPI_JWT_SECRET_FILE" in line for line in said)
