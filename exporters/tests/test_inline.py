"""The shipper inside of a service: one of its workers ships, another takes over, the end waits five seconds at most."""

from __future__ import annotations

import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from taskscope import instrument
from taskscope.logs.spool import Spool
from taskscope.settings import Settings
from taskscope.telemetry import Telemetry
from taskscope.testing import waiting
from taskscope.testing.engines import HOST, free_port
from taskscope_exporters.logs import settings, streams
from taskscope_exporters.logs.inline import ship_in_background
from taskscope_exporters.logs.settings import ShipSettings

from .conftest import Secured

until = partial(waiting.until, within_s=45, every_s=0.05)
pytestmark = pytest.mark.timeout(180)
STREAM = "logs-inline-local"
APP = """
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

from taskscope import instrument
from taskscope.logs import get_logger
from taskscope_exporters.logs import settings, streams
from taskscope_exporters.logs.inline import ship_in_background


@asynccontextmanager
async def lifespan(app):
    with ship_in_background(app.state.telemetry) as app.state.shipper:
        yield


app = FastAPI(lifespan=lifespan)
instrument(app, service_name="inline", service_version="1", tracing=False)


@app.get("/{n}")
async def log(n: int):
    get_logger("app").info("asked", n=n)
    return {"pid": os.getpid(), "leads": app.state.shipper.leads}
"""


class Service:
    """Two workers of uvicorn that ship for themselves."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process
        self.asked = 0
        self.answered: set[int] = set()
        self.seen: dict[int, bool] = {}

    def ask(self) -> bool:
        """A line is logged; false where no worker answered."""
        number, self.asked = self.asked, self.asked + 1
        try:
            answer = httpx2.get(f"{self.url}/{number}", timeout=5).json()
        except httpx2.HTTPError:
            return False
        self.answered.add(number)
        self.seen[answer["pid"]] = answer["leads"]
        return True

    @property
    def leaders(self) -> set[int]:
        return {pid for pid, leads in self.seen.items() if leads}


@contextmanager
def served(secured: Secured, folder: Path) -> Iterator[Service]:
    (folder / "app.py").write_text(APP)
    port = free_port()
    words = ("-m", "uvicorn", "app:app", "--workers", "2", "--port", str(port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words, "--log-level", "warning"],
            cwd=folder,
            env={
                **os.environ,
                **secured.environ(),
                "ELASTICSEARCH_SHIP": "inline",
                "TASKSCOPE_ACCESS_LOG": "false",
                "TASKSCOPE_SPOOL": str(folder / "spool"),
            },
            stderr=log,
        )
    try:
        yield Service(f"http://{HOST}:{port}", process)
    finally:
        process.terminate()
        process.wait(30)


def all_stored(secured: Secured, service: Service) -> bool:
    """Whether each line that was answered for is stored. Raises AssertionError if one is stored twice."""
    if not secured.count(STREAM):
        return False
    with secured.client() as client:
        found = client.search(index=STREAM, query={"match": {"message": "asked"}}, size=10_000)
    numbers = [int(hit["_source"]["labels"]["n"]) for hit in found["hits"]["hits"]]
    assert len(numbers) == len(set(numbers))
    return service.answered <= set(numbers)


@pytest.mark.engine
def test_of_two_workers_one_ships_the_other_takes_over_and_the_end_flushes(
    secured: Secured, tmp_path: Path
) -> None:
    with served(secured, tmp_path) as service:
        until(lambda: service.ask() and len(service.seen) == 2 and len(service.leaders) == 1)
        until(lambda: all_stored(secured, service), every_s=0.2)
        (leader,) = service.leaders
        os.kill(leader, signal.SIGKILL)
        service.seen.clear()
        until(lambda: service.ask() and service.leaders - {leader})
        until(lambda: all_stored(secured, service), every_s=0.2)
        for _ in range(20):
            service.ask()
        began = time.monotonic()
        service.process.terminate()
        service.process.wait(20)
        assert time.monotonic() - began < 10
    assert all_stored(secured, service)


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    made = instrument(
        Starlette(),
        service_name="inline",
        service_version="1",
        tracing=False,
        logs=False,
        settings=Settings(spool=tmp_path / "spool"),
    )
    yield made
    made.close()


def test_without_the_setting_nothing_is_shipped(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELASTICSEARCH_SHIP", raising=False)
    with ship_in_background(telemetry) as shipper:
        assert not shipper.leads
    assert not (telemetry.settings.spool / "shipper.lock").exists()


def test_a_server_that_is_away_holds_up_the_end_no_longer_than_asked(telemetry: Telemetry) -> None:
    spool = Spool(telemetry.settings.spool, max_bytes=1 << 20, segment_bytes=1 << 16)
    spool.write(b'{"@timestamp":"2026-01-01T00:00:00Z","message":"m"}\n')
    said: list[str] = []
    nobody = ShipSettings(url=f"http://{HOST}:{free_port()}")
    shipper = ship_in_background(telemetry, nobody, say=said.append)
    until(lambda: any("cannot be reached" in sentence for sentence in said))
    began = time.monotonic()
    shipper.close(1.0)
    shipper.close(1.0)
    assert time.monotonic() - began < 1.5
    spool.close()


def test_a_port_that_is_taken_is_said_and_the_lines_are_shipped_all_the_same(
    telemetry: Telemetry,
) -> None:
    said: list[str] = []
    with socket.create_server((HOST, 0)) as taken:
        nobody = ShipSettings(url=f"http://{HOST}:{free_port()}")
        port = taken.getsockname()[1]
        shipper = ship_in_background(telemetry, nobody, port=port, say=said.append)
        until(lambda: any("shipping goes on without its series" in text for text in said))
        until(lambda: any("cannot be reached" in text for text in said))
        assert shipper.leads
        shipper.close(0.5)


FORKED = """
import os, sys, threading
from pathlib import Path
from taskscope_exporters.logs.lock import FolderLock

stop = threading.Event()
mine = FolderLock(Path(sys.argv[1]))
assert mine.acquire(stop, print)
read, write = os.pipe()
child = os.fork()
if not child:
    os.close(write)
    os.read(read, 1)
    os._exit(0)
mine.close()
threading.Timer(3, stop.set).start()
got = FolderLock(Path(sys.argv[1])).acquire(stop, print)
os.close(write)
os.waitpid(child, 0)
os._exit(0 if got else 1)
"""


def test_a_forked_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path / "spool")], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_documents_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ELASTICSEARCH_SHIP", raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", setting_up(), re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "logs.md", "exec"), namespace)
    with TestClient(namespace["app"]) as client:
        assert client.get("/openapi.json").status_code == 200


def test_the_document_names_every_variable() -> None:
    source = inspect.getsource(settings) + inspect.getsource(streams)
    known = set(re.findall(r"ELASTICSEARCH_[A-Z_]+[A-Z]", source))
    text = setting_up()
    assert {name for name in known if not name.endswith("_FILE") and name not in text} == set()


def setting_up() -> str:
    page = Path(__file__).parents[2] / "docs" / "logs.md"
    return page.read_text().partition("\n## Setting up Elasticsearch\n")[2].partition("\n## ")[0]
