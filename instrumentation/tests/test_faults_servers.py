"""Faults of the machine, made for real under real servers: requests are answered, and what is counted is right."""

from __future__ import annotations

import http.client
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from taskscope.multiprocess import WorkerFolder
from taskscope.testing.logs import read_lines
from taskscope.testing.waiting import until

APP = """
import asyncio
import os
import resource
import time

from fastapi import FastAPI
from taskscope import Catalogue, Kind, Label, Metric, instrument

FORKED = Metric(name="shop.forked", kind=Kind.COUNTER, unit="{child}", help="Children.", owner="shop")
VISITS = Metric(name="shop.visits", kind=Kind.COUNTER, unit="{visit}", help="Visits.", owner="shop",
                labels=(Label("user", cap=500, bounded_by="nothing"),))
app = FastAPI()
telemetry = instrument(app, service_name="shop", service_version="1",
                       catalogue=Catalogue(service="shop", metrics=(FORKED, VISITS)))

@app.get("/work")
async def work() -> int:
    return os.getpid()

@app.get("/slow")
async def slow() -> int:
    await asyncio.sleep(1.5)
    return os.getpid()

@app.get("/forks")
def forks() -> int:
    child = os.fork()
    if child == 0:
        telemetry.counter(FORKED).inc()
        os._exit(0)
    return os.waitpid(child, 0)[1]

@app.get("/visits")
async def visits() -> int:
    for number in range(100):
        telemetry.counter(VISITS).inc(user=f"{time.monotonic_ns()}-{number}" + "x" * 200)
    return 100

@app.get("/tight")
async def tight() -> int:
    size = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (size + 50 * 2**20, -1))
    return size
"""
CLIENTS = 8
PARSERS = ("h11", "httptools")
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    FILE *told = id == CLOCK_REALTIME ? fopen(getenv("STEPPED"), "r") : NULL;
    long to = 0;
    if (told) { if (fscanf(told, "%ld", &to) == 1 && to) now->tv_sec = to; fclose(told); }
    return failed;
}
"""


class Service:
    """A server of APP on a port of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.folder = folder
        self.answered: Counter[str] = Counter()
        self._reader = WorkerFolder(folder / "workers", service="shop")

    def connect(self, timeout: float = 20) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str, within_s: float = 20) -> str:
        connection = self.connect(within_s)
        try:
            body = ask(connection, path)
            self.answered[path] += 1
            return body
        finally:
            connection.close()

    def counted(self, route: str) -> float:
        """Requests of a route over all workers, as the folder says; 0 before there is one."""
        return sum(
            sum(reading.cells[:-1])
            for reading in self._reader.collect().readings
            if reading.series.metric.name == "http.server.request.duration"
            and route in reading.series.values
        )

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status == 200, body
    return body


def total(text: str, name: str) -> float:
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


@contextmanager
def running(folder: Path, *words: str, **environ: str) -> Iterator[Service]:
    """words: of the server's command line, after `python -m`; `{fd}` is the listening socket."""
    (folder / "shop.py").write_text(APP)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        (folder / "stderr").open("wb") as told,
    ):
        fd = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(fd=fd) for word in words), "shop:app"],
            cwd=folder,
            env={
                **os.environ,
                "TASKSCOPE_MULTIPROCESS_DIR": str(folder / "workers"),
                "TASKSCOPE_SPOOL": str(folder / "spool"),
                **environ,
            },
            stderr=told,
            pass_fds=[fd],
            start_new_session=True,
        )
        service = Service(process, listener.getsockname()[1], folder)
        listener.close()  # so that nobody waits for a server that is gone
        try:
            until(
                lambda: process.poll() is not None or _work(service, ""),
                within_s=60,
                saying="it serves",
            )
            assert process.poll() is None, (folder / "stderr").read_text()
            yield service
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def uvicorn(http_: str, *more: str) -> tuple[str, ...]:
    return ("uvicorn", "--fd", "{fd}", "--http", http_, "--log-level", "warning", *more)


GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "fd://{fd}", "--log-level", "error")  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [uvicorn("h11"), uvicorn("httptools", "--workers", "2"), (*GUNICORN, "-w", "2")],
    ids=["h11", "httptools and two workers", "gunicorn"],
)
def test_at_a_sigterm_what_is_under_way_is_answered_and_counted(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with running(tmp_path, *words) as service, ThreadPoolExecutor(100) as clients:
        until(lambda: "shop" in service.get("/metrics"), within_s=20, saying="it serves")
        answers = [clients.submit(service.get, "/slow") for _ in range(100)]
        under_way = "http_server_active_requests"
        until(
            lambda: total(service.get("/metrics"), under_way) >= 100,
            within_s=10,
            saying="all requests are under way",
        )
        began = monotonic()
        service.process.terminate()
        assert all(int(answer.result()) for answer in answers)
        # uvicorn alone gives the signal back to the system when it has ended in good order.
        assert service.process.wait(15) in (0, -signal.SIGTERM)
        assert monotonic() - began < 15
        assert service.counted("/slow") == 100
        assert WorkerFolder(tmp_path / "workers", service="shop").collect().workers == 0


def test_a_killed_group_loses_at_most_what_was_under_way(tmp_path: Path) -> None:
    answered, kills = 0, 0
    chance = random.Random(20261124)
    for _ in range(3):
        with (
            running(tmp_path, *uvicorn("httptools", "--workers", "2")) as service,
            ThreadPoolExecutor(CLIENTS) as clients,
        ):
            assert service.counted("/work") >= answered - kills * CLIENTS  # of all runs before
            fatal = 60 + chance.randrange(120)
            load = [clients.submit(_work, service, "") for _ in range(300)]
            until(
                partial(_enough, service, fatal),
                within_s=30,
                saying="so many requests are answered",
            )
            os.killpg(service.process.pid, signal.SIGKILL)
            kills += 1
            for each in load:
                each.cancel()
        answered += service.answered["/work"]
        # An answer is counted when it is sent, so the kill may come between.
        assert abs(service.counted("/work") - answered) <= kills * CLIENTS


def _enough(service: Service, fatal: int) -> bool:
    return service.answered["/work"] >= fatal


def test_a_worker_that_stands_still_holds_up_no_scrape_and_no_sum(tmp_path: Path) -> None:
    with running(tmp_path, *GUNICORN, "-w", "3") as service:
        pids: set[str] = set()
        until(
            partial(_all_serve, service, pids),
            within_s=60,
            saying="all three serve",
        )
        still = int(min(pids))
        until(
            lambda: service.counted("/work") == service.answered["/work"],
            within_s=10,
            saying="none stands still between an answer and its count",
        )
        os.kill(still, signal.SIGSTOP)
        unanswered = 0
        try:
            for _ in range(30):
                try:
                    service.get("/work", within_s=2)
                except OSError:  # the one that stands still may have taken the connection
                    unanswered += 1
            until(lambda: _scraped(service), within_s=10, saying="another worker is scraped")
            until(
                lambda: 0 <= service.counted("/work") - service.answered["/work"] <= unanswered,
                within_s=5,
                saying="all that was answered is in the sum, its own too",
            )
            assert service.answered["/work"] >= 20
        finally:
            os.kill(still, signal.SIGCONT)
        until(lambda: _scraped(service), within_s=10, saying="it goes on")
        assert service.counted("/work") >= service.answered["/work"]


def _all_serve(service: Service, pids: set[str]) -> bool:
    pids.add(service.get("/work"))
    return len(pids) == 3


def _others_serve(service: Service, old: str) -> bool:
    return _work(service, old) != old


def _scraped(service: Service) -> bool:
    with suppress(OSError):
        return total(service.get("/metrics", 1), "taskscope_multiprocess_workers") == 3
    return False


def test_a_reload_leaves_nothing_behind_and_no_count_falls(tmp_path: Path) -> None:
    watched = ("--reload", "--reload-dir", str(tmp_path))
    with running(tmp_path, *uvicorn("httptools", *watched)) as service:
        seen, old = [service.counted("/work")], service.get("/work")
        for change in range(3):
            (tmp_path / "shop.py").write_text(f"{APP}\n# change {change}\n")
            until(partial(_others_serve, service, old), within_s=60, saying="the new code serves")
            old = service.get("/work")
            seen.append(service.counted("/work"))
            until(
                lambda: len(list((tmp_path / "workers").glob("*.cells"))) == 1,
                within_s=10,
                saying="one worker has a file",
            )
        assert seen == sorted(seen)
        assert seen[-1] >= 7
        assert len(list(Path(f"/proc/{old}/fd").iterdir())) < 40


def _work(service: Service, otherwise: str) -> str:
    with suppress(OSError, http.client.HTTPException):
        return service.get("/work", 5)
    return otherwise


@pytest.mark.parametrize("parser", PARSERS)
def test_a_handler_that_forks_hangs_nobody_and_loses_no_count(tmp_path: Path, parser: str) -> None:
    with running(tmp_path, *uvicorn(parser)) as service, ThreadPoolExecutor(8) as clients:
        assert set(clients.map(service.get, ["/forks"] * 40)) == {"0"}
        until(
            lambda: total(service.get("/metrics"), "shop_forked_total") == 40,
            within_s=20,
            saying="what the children counted is there",
        )
        assert total(service.get("/metrics"), "taskscope_library_errors_total") == 0


@pytest.mark.parametrize("parser", PARSERS)
def test_without_descriptors_open_connections_are_served_and_it_recovers(
    tmp_path: Path, parser: str
) -> None:
    with running(tmp_path, *uvicorn(parser)) as service, ExitStack() as others:
        kept = service.connect()
        others.callback(kept.close)
        ask(kept, "/work")
        pid = service.process.pid
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
        idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(30)]
        before, began = service.cpu_s(), monotonic()
        for _ in range(50):
            ask(kept, "/work")
        until(lambda: monotonic() - began > 1, within_s=5, saying="a second is over")
        assert service.cpu_s() - before < 0.5
        for each in idle:
            each.close()
        until(
            lambda: _work(service, "") == str(pid), within_s=30, saying="new connections are served"
        )
        assert total(service.get("/metrics"), "http_server_request_duration_seconds_count") >= 52


@pytest.mark.parametrize("parser", PARSERS)
def test_with_little_memory_left_requests_and_scrapes_are_answered(
    tmp_path: Path, parser: str
) -> None:
    with running(tmp_path, *uvicorn(parser)) as service:
        service.get("/tight")
        for _ in range(100):
            service.get("/visits")
        assert total(service.get("/metrics"), "shop_visits_total") == 10_000
        assert "MemoryError" not in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize("parser", PARSERS)
def test_a_stepped_clock_makes_no_duration_wrong(tmp_path: Path, parser: str) -> None:
    source, library, stepped = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "stepped"
    source.write_text(CLOCK)
    stepped.write_text("0")
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    environ = {"LD_PRELOAD": str(library), "STEPPED": str(stepped)}
    with (
        running(tmp_path, *uvicorn(parser), **environ) as service,
        ThreadPoolExecutor(1) as clients,
    ):
        for second in (1, 1_900_000_000, 2_147_483_648, 1_000_000_000):
            waits = clients.submit(service.get, "/slow")
            service.get("/work")
            stepped.write_text(str(second))
            service.get("/work")
            waits.result()
        until(lambda: service.counted("/slow") == 4, within_s=10, saying="all are counted")
        text = service.get("/metrics")
        for name in ("request_duration", "response_time_to_first_byte"):
            assert 6 < total(text, f"http_server_{name}_seconds_sum") < 60
        assert 0 < total(text, "taskscope_library_time_seconds_total") < 60
        assert total(text, "taskscope_library_errors_total") == 0
        # The fault was there: the lines, which tell the wall clock, have all of its times.
        until(
            lambda: (
                {line["@timestamp"][:4] for line in read_lines(tmp_path / "spool")}
                >= {"1970", "2001", "2030", "2038"}
            ),
            within_s=5,
            saying="the clock was stepped",
        )
