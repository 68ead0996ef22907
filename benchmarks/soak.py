"""Ten minutes of abuse: python benchmarks/soak.py [--minutes N]

A FastAPI app with metrics, lines and traces runs under uvicorn with the h11 parser, which lets invented methods
through. Scanned and invented paths, invented methods and odd headers come over 8 connections, after each method was
sent once to each path and left alone thirty times, so that no series is new afterwards. Printed every ten
seconds: resident memory, series, open files. It ends with what grew after the first minute, or after half of the
time if that is less.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from urllib.request import urlopen

from taskscope.testing.abuse import abuse, rehearse

_EVERY_S: Final = 10.0
_WARM_S: Final = 60.0
_START_S: Final = 20.0
_MEBI: Final = 1024 * 1024
_MOST_MIB: Final = 8.0
_PATHS: Final = ("/api/v1/tasks/7", "/api/v1/tasks/x", "/api/v1/teams/", "/broken", "/stream")

APP: Final = """
import asyncio
from pathlib import Path
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from taskscope import Settings, instrument

app = FastAPI()
router = APIRouter(prefix="/api/v1")

@router.get("/tasks/{task_id}")
async def task(task_id: int) -> dict[str, int]:
    return {"task": task_id}

@router.get("/teams")
def teams() -> list[str]:
    return []

app.include_router(router)

@app.get("/broken")
async def broken() -> None:
    raise RuntimeError("planted")

@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts():
        for _ in range(3):
            yield b"x" * 100
            await asyncio.sleep(0)
    return StreamingResponse(parts(), headers={"content-length": "300"})

instrument(app, service_name="soak", service_version="1",
           settings=Settings(trace_ratio=0.01, spool=Path("spool"), spool_max_bytes=4 * 1024 * 1024))
"""


class Reading(NamedTuple):
    """What the process holds at one moment."""

    at_s: float
    memory: int
    series: int
    files: int


def read(port: int, pid: int, at_s: float) -> Reading:
    """The process as Linux and its own exposition tell of it."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    statm = Path(f"/proc/{pid}/statm").read_text().split()
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Reading(at_s, int(statm[1]) * 4096, sum(not x.startswith("#") for x in lines), files)


async def watch(port: int, pid: int, told: list[Reading], seconds: float) -> None:
    """A reading every ten seconds, printed as it is made."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        reading = await asyncio.to_thread(read, port, pid, passed)
        told.append(reading)
        row = f"{passed:>6.0f} s {reading.memory / _MEBI:>9.1f} MiB {reading.series:>7} series {reading.files:>4} files"
        sys.stdout.write(row + "\n")
        sys.stdout.flush()
        await asyncio.sleep(_EVERY_S)


async def soak(port: int, pid: int, seconds: float) -> tuple[list[Reading], Counter[int]]:
    """Readings of the whole time, and the statuses that came back."""
    told: list[Reading] = []
    await rehearse(port, paths=_PATHS)
    watching = asyncio.create_task(watch(port, pid, told, seconds))
    statuses = await abuse(port, seconds=seconds, seed=20261124, paths=_PATHS)
    await watching
    told.append(await asyncio.to_thread(read, port, pid, seconds))
    return told, statuses


def verdict(told: list[Reading], statuses: Counter[int]) -> tuple[str, bool]:
    """What grew after the service was warm, and whether that is flat."""
    warm_s = min(_WARM_S, told[-1].at_s / 2)
    warm = next(reading for reading in told if reading.at_s >= warm_s)
    memory = (max(r.memory for r in told if r.at_s >= warm.at_s) - warm.memory) / _MEBI
    series = max(r.series for r in told) - warm.series
    files = told[-1].files - warm.files
    answered = ", ".join(f"{status or 'left'} × {n:,}" for status, n in sorted(statuses.items()))
    text = (
        f"{statuses.total():,} requests ({answered})\n"
        f"after {warm.at_s:.0f} s: memory {memory:+.1f} MiB at most, series {series:+d}, files {files:+d}"
    )
    return text, memory <= _MOST_MIB and series == 0 and files <= 16


def started(port: int, process: subprocess.Popen[bytes]) -> None:
    """The service answers. Raises SystemExit if it ended or takes too long."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            read(port, process.pid, 0)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the service did not start; run its app by hand to see why")


def main() -> None:
    """Exit code 1 if something grew."""
    parser = argparse.ArgumentParser(description="Abuse of a service, and what grows in it.")
    parser.add_argument("--minutes", type=float, default=10.0)
    seconds = parser.parse_args().minutes * 60
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with TemporaryDirectory(prefix="taskscope-soak-") as folder:
        Path(folder, "soak_app.py").write_text(APP)
        words = [sys.executable, "-m", "uvicorn", "soak_app:app", "--port", str(port)]
        words += ["--http", "h11", "--no-access-log", "--log-level", "critical"]
        process = subprocess.Popen(words, cwd=folder)
        try:
            started(port, process)
            text, flat = verdict(*asyncio.run(soak(port, process.pid, seconds)))
        finally:
            process.terminate()
            process.wait(20)
    sys.stdout.write(text + "\n")
    raise SystemExit(0 if flat else 1)


if __name__ == "__main__":
    main()
