"""`python -m taskscope_taskapi` as a supervisor meets it: a process, its exit status and what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from taskscope.testing.engines import free_port
from taskscope.testing.logs import read_lines


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "taskscope_taskapi", *arguments]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TASK")}
    given = {
        name if name.startswith("TASKSCOPE_") else f"TASKAPI_{name}": text
        for name, text in variables.items()
    }
    return {**kept, **given}


def refused(folder: Path, *arguments: str, **variables: str) -> list[str]:
    """The sentences of a start that is refused with exit status 2, on a port that is free unless it is given."""
    if "--port" not in arguments:
        arguments = ("--port", str(free_port()), *arguments)
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@contextmanager
def started(
    folder: Path, port: int, *words: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("--port", str(port), *words),
        cwd=folder,
        env=environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(port: int) -> bool:
    try:
        with httpx2.Client(trust_env=False, timeout=2) as http:
            return http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx2.HTTPError:
        return False


def test_an_instance_serves_and_ends_well_when_it_is_told_to(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, port) as process:
        headers = httpx2.get(f"http://127.0.0.1:{port}/livez", trust_env=False).headers
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert "server" not in headers
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / ".taskscope").stat().st_mode & 0o777 == 0o700


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused(tmp_path, "--port", port)
    assert len(told) == 1
    assert f"127.0.0.1:{port}" in told[0]
    assert "--port" in told[0]


def test_wrong_settings_are_one_sentence_each(tmp_path: Path) -> None:
    told = refused(tmp_path, POOL_SIZE="many", TRUSTED_PROXIES="*", JWT_SECRET="hunter2")
    assert sorted(line.split()[1].partition("=")[0] for line in told) == [
        "TASKAPI_JWT_SECRET",
        "TASKAPI_POOL_SIZE",
        "TASKAPI_TRUSTED_PROXIES",
    ]
    assert "hunter2" not in "".join(told)


def test_a_database_that_is_not_there_is_one_sentence_and_its_trace_is_in_the_log(
    tmp_path: Path,
) -> None:
    port = f"--port={free_port()}"
    told = refused(tmp_path, port, DATABASE_URL="postgresql+asyncpg://u:hunter2@127.0.0.1:1/x")
    assert len(told) == 1
    assert "TASKAPI_DATABASE_URL: 127.0.0.1:1 does not answer" in told[0]
    failed = read_lines(tmp_path / ".taskscope" / "spool")[-1]
    assert failed["log.level"] == "critical"
    assert "DatabaseUnavailable" in failed["error.type"]
    assert "hunter2" not in str(failed)


def test_a_database_file_that_cannot_be_made_names_its_own_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (told,) = refused(tmp_path, DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/file/x.db")
    assert "TASKAPI_DATABASE_URL" in told
    (told,) = refused(tmp_path, STATE_DIR=f"{tmp_path}/file/x")
    assert "TASKAPI_STATE_DIR" in told


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_one_sentence(tmp_path: Path, port: str) -> None:
    assert len(refused(tmp_path, f"--port={port}")) == 1


def test_importing_the_package_stays_light() -> None:
    script = (
        "import sys, taskscope_taskapi; taskscope_taskapi.CATALOGUE; "
        "print(sorted({'fastapi', 'sqlalchemy', 'pydantic', 'jwt', 'uvicorn', 'httpx2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
