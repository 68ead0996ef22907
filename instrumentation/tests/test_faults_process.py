"""Faults inside one process: how it ends, what its folder becomes, and that each request is counted once."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Literal
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from taskscope import Settings, Telemetry, instrument
from taskscope.catalogue.builtin import (
    LIBRARY_ERRORS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
)
from taskscope.testing.abuse import abuse
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.waiting import until

ENDING = """
import atexit, os, signal, sys, threading, time
from fastapi import FastAPI
from fastapi.testclient import TestClient
from taskscope import instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS

app = FastAPI()
telemetry = instrument(app, service_name="shop", service_version="1")

@app.get("/work")
async def work() -> int:
    return 1

def counts() -> None:
    while True:
        telemetry.counter(LIBRARY_ERRORS).inc(component="metrics", error_type="none")

def serves() -> None:
    with TestClient(app) as client:
        while True:
            client.get("/work")
            client.get("/metrics")

for target in (counts, serves):
    threading.Thread(target=target, daemon=True).start()
atexit.register(telemetry.metrics)
client = TestClient(app)
assert client.get("/work").status_code == 200
time.sleep(0.2)
"""
ENDS = {
    "sys.exit": ("sys.exit(0)", 0),
    "os._exit": ("os._exit(0)", 0),
    "the last line": ("", 0),
    "SIGTERM in atexit": (
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))",
        -signal.SIGTERM,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_the_process_ends_it_ends_soon_and_says_nothing(tmp_path: Path, end: str) -> None:
    code, returned = ENDS[end]
    (tmp_path / "shop.py").write_text(f"{ENDING}{code}\n")
    process = subprocess.Popen(
        [sys.executable, "shop.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "TASKSCOPE_MULTIPROCESS_DIR": str(tmp_path / "workers")},
    )
    told, _ = process.communicate(timeout=60)
    assert (told.decode(), process.returncode) == ("", returned)


def _measured(folder: Path | None = None) -> tuple[FastAPI, Telemetry]:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("planted")

    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(multiprocess_dir=folder),
    )
    return app, telemetry


def _deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def _swapped(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _opened(folder: Path) -> None:
    folder.chmod(0o777)


@pytest.mark.parametrize("attack", [_deleted, _swapped, _opened])
def test_a_folder_that_is_taken_away_fails_no_request_and_no_scrape_lies(
    tmp_path: Path, attack: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(attack)
    folder = tmp_path / "workers"
    app, telemetry = _measured(folder)
    with TestClient(app) as client:
        assert client.get("/items/1").status_code == 200
        attack(folder)
        for number in range(50):
            assert client.get(f"/items/{number}").status_code == 200
        # The truth or nothing: one worker's share alone would look like a restart of all counters.
        assert client.get("/metrics").status_code == 500
        found = value(telemetry.registry, LIBRARY_ERRORS, component="exposition")
        assert found == 1
        assert value(telemetry.registry, REQUEST_DURATION) == 51
        if folder.is_symlink():
            folder.unlink()
            folder.with_name("elsewhere").rename(folder)
        if folder.exists():
            folder.chmod(0o700)
            assert client.get("/metrics").status_code == 200
    telemetry.close()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_every_answer_is_in_the_series_once_under_its_status(
    http: Literal["h11", "httptools"],
) -> None:
    app, telemetry = _measured()
    paths = ("/items/7", "/items/x", "/broken", "/items/7/")
    with serving(app, http=http) as url:
        port = urlsplit(url).port or 0
        told = asyncio.run(abuse(port, seconds=30, seed=3, paths=paths, most=1_500))
        answered = {status: n for status, n in told.items() if status >= 200}
        answered.pop(400, None)  # the parser's own answer, of which the application never hears
        until(
            lambda: _missing(_statuses(telemetry), answered) == 0, saying="all answers are counted"
        )
        counted = _statuses(telemetry)
    left_without_waiting = told[0]
    assert sum(counted.values()) - sum(answered.values()) <= left_without_waiting
    for metric in (TIME_TO_FIRST_BYTE, RESPONSE_SIZE):
        assert value(telemetry.registry, metric) == sum(counted.values())
    telemetry.close()


def _statuses(telemetry: Telemetry) -> Counter[int]:
    found: Counter[int] = Counter()
    for family in telemetry.registry.collect():
        for sample in family.samples:
            if sample.name == f"{REQUEST_DURATION.family}_count":
                found[int(sample.labels["http_response_status_code"])] += int(sample.value)
    return +found


def _missing(counted: Counter[int], answered: dict[int, int]) -> int:
    return sum(max(0, n - counted[status]) for status, n in answered.items())


FORGED = (
    b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",  # well formed, of a stranger
    b'00-" } 1 # {x="1"} 2-\\n-01',
    b"00-" + "é".encode("latin-1") * 32 + b"-" + b"b" * 16 + b"-01",
    b"00-" + b"A" * 32 + b"-" + b"B" * 16 + b"-01",
    b"ff-" + b"a" * 4_000,
    b"",
)


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_no_header_gets_into_an_exemplar(http: Literal["h11", "httptools"]) -> None:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    telemetry = instrument(
        app, service_name="shop", service_version="1", logs=False, settings=Settings()
    )
    with serving(app, http=http) as url:
        port = urlsplit(url).port or 0
        for forged in FORGED:
            lines = (b"GET /items/1 HTTP/1.1", b"Host: x", b"traceparent: " + forged)
            more = (b'baggage: x="\t1"', b"tracestate: " + b"a=b," * 200, b"Connection: close")
            with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
                caller.sendall(b"\r\n".join((*lines, *more, b"", b"")))
                caller.recv(4096)
        until(lambda: value(telemetry.registry, REQUEST_DURATION) >= 5, saying="all are counted")
    text = telemetry.metrics(openmetrics=True).decode()
    exemplars = re.findall(r" # (\{.*?\}) ", text)
    ours = r'\{span_id="[0-9a-f]{16}",trace_id="(?!a{32}|b{16})[0-9a-f]{32}"\}'
    assert exemplars
    assert [each for each in exemplars if re.fullmatch(ours, each) is None] == []
    assert list(text_string_to_metric_families(text))
    telemetry.close()


def test_ten_thousand_routes_start_at_once_and_stay_within_the_bound_of_series() -> None:
    app = FastAPI(openapi_url=None)

    async def answer(request: object) -> PlainTextResponse:
        return PlainTextResponse("here")

    app.router.routes += [Route(f"/r{number}/{{x}}", answer) for number in range(10_000)]
    began = monotonic()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        logs=False,
        tracing=False,
        settings=Settings(),
    )
    client = TestClient(app)
    assert client.get("/r9999/1").status_code == 200
    assert monotonic() - began < 5
    for number in range(0, 1_000, 4):
        client.get(f"/r{number}/1")
    series = {
        sample.labels["http_route"]
        for family in telemetry.registry.collect()
        if family.name == REQUEST_DURATION.family
        for sample in family.samples
    }
    assert len(series) == 201
    assert {"/r9999/{x}", "__overflow__"} <= series
    assert value(telemetry.registry, REQUEST_DURATION) == 251
    telemetry.close()
