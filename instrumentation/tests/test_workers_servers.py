"""Real servers with several workers that are killed, recycled and restarted while a client counts its answers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from taskscope.multiprocess import WorkerFolder
from taskscope.testing import waiting

APP = """
import os

from fastapi import FastAPI
from taskscope import Kind, Metric, Catalogue, instrument

LIVING = Metric(name="shop.living", kind=Kind.GAUGE, unit="{worker}", help="Living.", owner="shop")
app = FastAPI()
telemetry = instrument(
    app,
    service_name="shop",
    service_version="1",
    catalogue=Catalogue(service="shop", metrics=(LIVING,)),
    logs=False,
    tracing=False,
)


@app.get("/work")
async def work() -> int:
    telemetry.gauge(LIVING).set(1)
    return os.getpid()
"""
WORKERS = 3
CLIENTS = 8
GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", str(WORKERS), "-b", "fd://{fd}")
UVICORN = ("uvicorn", "--workers", str(WORKERS), "--fd", "{fd}", "--log-level", "warning")
SERVERS = {
    "uvicorn h11": (*UVICORN, "--http", "h11"),
    "uvicorn httptools": (*UVICORN, "--http", "httptools"),
    "gunicorn": (*GUNICORN, "--log-level", "warning"),
    "gunicorn preload": (*GUNICORN, "--log-level", "warning", "--preload"),
}


class Service:
    """A running server and the client that counts its answers."""

    def __init__(self, port: int, folder: Path) -> None:
        self.folder = folder
        self.answered = 0
        self.pids: set[int] = set()
        self._port = port

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return body
        finally:
            connection.close()

    def work(self, requests: int) -> int:
        """So many requests by CLIENTS at once; how many of them were not answered."""
        self.pids = set()

        def one(_: int) -> int:
            try:
                return int(json.loads(self.get("/work")))
            except (OSError, http.client.HTTPException):
                return 0

        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(one, range(requests)))
        self.pids = {pid for pid in answers if pid}
        lost = answers.count(0)
        self.answered += requests - lost
        return lost

    def total(self, name: str) -> float:
        text = self.get("/metrics").decode()
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def counted(self) -> float:
        return self.total("http_server_request_duration_seconds_count")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.cells"))


def requests_in(reader: WorkerFolder) -> float:
    """What any process reads from the folder, past the answer that a worker keeps for a second."""
    return sum(
        sum(reading.cells[:-1])
        for reading in reader.collect().readings
        if reading.series.metric.name == "http.server.request.duration"
    )


def until(holds: Callable[[], bool], what: str) -> None:
    # A worker takes seconds to import on a busy machine.
    waiting.until(holds, within_s=40, saying=what)


@contextmanager
def running(tmp_path: Path, command: tuple[str, ...]) -> Iterator[Service]:
    (tmp_path / "shop.py").write_text(APP)
    folder = tmp_path / "workers"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        fd = listener.fileno()
        module, *words = (word.format(fd=fd) for word in command)
        environ = {**os.environ, "TASKSCOPE_MULTIPROCESS_DIR": str(folder)}
        server = subprocess.Popen(
            [sys.executable, "-m", module, *words, "shop:app"],
            cwd=tmp_path,
            env=environ,
            pass_fds=[fd],
            start_new_session=True,
        )
        service = Service(listener.getsockname()[1], folder)
        try:
            yield service
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def all_serve(service: Service, others_than: set[int]) -> bool:
    service.work(24)
    return len(service.pids) == WORKERS and not service.pids & others_than


@pytest.mark.parametrize("kind", SERVERS)
def test_after_a_killed_worker_the_sum_is_what_was_answered(tmp_path: Path, kind: str) -> None:
    main = 1 if "preload" in kind else 0
    with running(tmp_path, SERVERS[kind]) as service:
        until(lambda: all_serve(service, set()), "not all workers serve")
        until(lambda: service.counted() == service.answered, "the sum is not what was answered")
        victim = min(service.pids)
        os.kill(victim, signal.SIGKILL)
        until(lambda: all_serve(service, {victim}), "no worker took its place")
        until(lambda: service.counted() == service.answered, "the sum is not what was answered")
        assert service.total("taskscope_multiprocess_workers") == WORKERS + main
        assert service.total("shop_living") == WORKERS
        assert len(service.files()) == WORKERS + main


@pytest.mark.parametrize("kind", ["uvicorn httptools", "gunicorn"])
def test_workers_killed_under_load_lose_at_most_what_was_under_way(
    tmp_path: Path, kind: str
) -> None:
    with running(tmp_path, SERVERS[kind]) as service, ThreadPoolExecutor(1) as load:
        until(lambda: all_serve(service, set()), "not all workers serve")
        reader = WorkerFolder(service.folder, service="shop")
        seen = [requests_in(reader)]
        for _ in range(2):
            victim = min(service.pids)
            under_way = load.submit(service.work, 300)
            until(lambda: requests_in(reader) > seen[-1], "the load did not begin")
            os.kill(victim, signal.SIGKILL)
            while not under_way.done():
                seen.append(requests_in(reader))
            under_way.result()
            until(lambda v=victim: all_serve(service, {v}), "no worker took its place")
        assert seen == sorted(seen)
        assert abs(requests_in(reader) - service.answered) <= 2 * CLIENTS
        assert len(service.files()) == WORKERS


@pytest.mark.parametrize("extra", [(), ("--preload",)])
def test_recycled_workers_leave_no_file_and_no_gap(tmp_path: Path, extra: tuple[str, ...]) -> None:
    served: set[int] = set()

    def recycled(service: Service) -> bool:
        service.work(20)
        served.update(service.pids)
        return len(served) > WORKERS + 1

    with running(tmp_path, (*SERVERS["gunicorn"], "--max-requests", "30", *extra)) as service:
        until(lambda: recycled(service), "no worker was recycled")
        reader = WorkerFolder(service.folder, service="shop")
        until(lambda: requests_in(reader) == service.answered, "the sum is not what was answered")
        until(
            lambda: reader.collect().workers <= WORKERS + 1 >= len(service.files()),
            "files of the dead are left",
        )


def test_a_service_that_starts_again_in_its_folder_counts_on(tmp_path: Path) -> None:
    answered = 0
    for _ in range(2):
        with running(tmp_path, SERVERS["gunicorn preload"]) as service:
            until(lambda s=service: all_serve(s, set()), "not all workers serve")
            answered += service.answered
            reader = WorkerFolder(service.folder, service="shop")
            until(
                lambda r=reader, all_=answered: requests_in(r) == all_,
                "the sum is not what was answered",
            )
