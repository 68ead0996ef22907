"""Every source of lines in real processes: what nobody caught, warnings, a server's own lines, signals to workers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from taskscope.testing.engines import free_port
from taskscope.testing.logs import Line, read_lines
from taskscope.testing.waiting import until

TOKEN = "an-admin-token-of-chars"

BEGIN = """
import asyncio, gc, logging, os, sys, threading, warnings
from pathlib import Path
from taskscope.logs import configure, get_logger
from taskscope.settings import Settings

def nothing(*_):
    pass

pipeline = configure(
    settings=Settings(spool=Path(sys.argv[1])), service_name="shop", service_version="1",
    on_line=nothing, on_drop=nothing, on_error=nothing,
)
"""


def ran(tmp_path: Path, code: str) -> tuple[list[Line], subprocess.CompletedProcess[str]]:
    spool = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", BEGIN + code, str(spool)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return read_lines(spool), done


def failure(line: Line) -> tuple[Any, ...]:
    return (line["log.level"], line["message"], line["error.type"], line["error.message"])


def test_an_exception_of_the_main_program_is_a_line_and_printed_as_ever(tmp_path: Path) -> None:
    code = "def pay():\n    raise ValueError('token=abcdef')\npay()\n"
    (line,), done = ran(tmp_path, code)
    assert failure(line) == (
        "critical",
        "uncaught exception",
        "builtins.ValueError",
        "token=[redacted]",
    )
    assert line["log.logger"] == "taskscope.uncaught"
    assert line["error.frames"][0]["frames"][-1]["function"] == "pay"
    assert done.returncode == 1
    assert done.stderr.count("ValueError: token=abcdef") == 1


def test_an_ending_that_was_meant_is_no_line(tmp_path: Path) -> None:
    lines, done = ran(tmp_path, "sys.exit(3)")
    assert (lines, done.returncode) == ([], 3)


def test_an_exception_of_a_thread_is_a_line(tmp_path: Path) -> None:
    code = """
def work():
    raise OSError("gone")
one = threading.Thread(target=work, name="worker-7"); one.start(); one.join()
two = threading.Thread(target=sys.exit); two.start(); two.join()
"""
    (line,), done = ran(tmp_path, code)
    assert failure(line) == ("error", "uncaught exception in a thread", "builtins.OSError", "gone")
    assert line["process.thread.name"] == "worker-7"
    assert done.stderr.count("OSError: gone") == 1


def test_an_exception_that_could_not_be_raised_is_a_line(tmp_path: Path) -> None:
    code = """
class Connection:
    def __del__(self):
        raise RuntimeError("not closed")
Connection(); gc.collect()
"""
    (line,), done = ran(tmp_path, code)
    assert failure(line)[1:] == (
        "exception that could not be raised",
        "builtins.RuntimeError",
        "not closed",
    )
    assert line["labels"]["within"] == "Connection.__del__"
    assert done.stderr.count("RuntimeError: not closed") == 1


@pytest.mark.parametrize("handler", ["", "loop.set_exception_handler(lambda *_: print('heard'))"])
def test_an_exception_of_an_event_loop_is_one_line(tmp_path: Path, handler: str) -> None:
    code = f"""
async def main():
    loop = asyncio.get_running_loop()
    {handler}
    pipeline.adopt()
    async def work():
        raise LookupError("nobody waits")
    asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
asyncio.run(main())
pipeline.close()
"""
    (line,), done = ran(tmp_path, code)
    assert (line["error.type"], line["error.message"]) == ("builtins.LookupError", "nobody waits")
    assert done.stdout == ("heard\n" if handler else "")


def test_a_warning_is_a_line(tmp_path: Path) -> None:
    (line,), _ = ran(tmp_path, "warnings.warn('old way', DeprecationWarning)")
    assert line["log.logger"] == "py.warnings"
    assert line["log.level"] == "warning"
    assert "DeprecationWarning: old way" in line["message"]


def test_hooks_of_two_pipelines_tell_once_and_are_given_back(tmp_path: Path) -> None:
    code = """
before = sys.excepthook, threading.excepthook, sys.unraisablehook
second = configure(
    settings=Settings(spool=Path(sys.argv[1])), service_name="other", service_version="1",
    on_line=nothing, on_drop=nothing, on_error=nothing,
)
pipeline.close(); pipeline.adopt(); pipeline.adopt()
raise ValueError("once")
"""
    lines, done = ran(tmp_path, code)
    assert [line["error.message"] for line in lines] == ["once"]
    assert done.stderr.count("ValueError: once") == 1
    ended = "pipeline.close(); assert sys.excepthook is sys.__excepthook__\n"
    assert ran(tmp_path / "again", ended)[1].returncode == 0


def test_a_forked_child_tells_its_own_process(tmp_path: Path) -> None:
    code = """
log = get_logger("shop")
log.info("begun")
child = os.fork()
log.info("forked")
if child:
    os.waitpid(child, 0)
"""
    lines, done = ran(tmp_path, code)
    assert done.returncode == 0
    forked = {line["process.pid"] for line in lines if line["message"] == "forked"}
    begun = {line["process.pid"] for line in lines if line["message"] == "begun"}
    assert len(forked) == 2
    assert begun < forked


APP = """
import logging, os, warnings
from fastapi import FastAPI
from taskscope import Settings, get_logger, instrument

app = FastAPI()
telemetry = instrument(app, service_name="shop", service_version="1", tracing=False)

@app.get("/pid")
async def pid():
    get_logger("shop").debug("detail", worker=os.getpid())
    logging.getLogger("shop.std").debug("detail too")
    return os.getpid()

@app.get("/reconfigured")
async def reconfigured():
    import uvicorn.config
    logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)
    logging.basicConfig(force=True)
    return "done"
"""
UVICORN = ("uvicorn", "app:app", "--workers", "2", "--fd", "{fd}")
GUNICORN = (
    *("gunicorn", "app:app", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "-b", "fd://{fd}"),
    "--preload",
)


class Service:
    """A server with two workers, its own logging as it comes, and its lines."""

    def __init__(self, port: int, admin: int, spool: Path) -> None:
        self._port = port
        self.admin = admin
        self._spool = spool

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def pids(self) -> set[int]:
        """The workers that serve; which of them takes a connection is for the system to choose."""
        found: set[int] = set()
        for _ in range(300):
            found.add(self.get("/pid"))
            if len(found) == 2:
                break
        return found

    def control(self, method: str, body: bytes | None = None) -> Any:
        asked = Request(
            f"http://127.0.0.1:{self.admin}/logging",
            data=body,
            method=method,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        with urlopen(asked, timeout=5) as response:
            return json.loads(response.read())

    def lines(self, message: str) -> list[Line]:
        return [line for line in read_lines(self._spool) if line["message"] == message]

    def detailed(self) -> set[int]:
        """The workers that log details, as their lines say, after each has served."""
        before = self._details()
        self.pids()
        return set((self._details() - before).keys())

    def _details(self) -> Counter[int]:
        return Counter(line["labels"]["worker"] for line in self.lines("detail"))


@contextmanager
def served(tmp_path: Path, command: tuple[str, ...]) -> Iterator[Service]:
    (tmp_path / "app.py").write_text(APP)
    admin, spool = free_port(), tmp_path / "spool"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(fd=listener.fileno()) for part in command)],
            cwd=tmp_path,
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "TASKSCOPE_SPOOL": str(spool),
                "TASKSCOPE_METRICS_PORT": str(admin),
                "TASKSCOPE_ADMIN_TOKEN": TOKEN,
                "TASKSCOPE_MULTIPROCESS_DIR": str(tmp_path / "workers"),
            },
        )
        service = Service(listener.getsockname()[1], admin, spool)
        try:
            until(lambda: len(service.pids()) == 2, within_s=30)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def soon(holds: Callable[[], bool]) -> None:
    until(holds, within_s=20)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn preload"])
def test_all_workers_follow_a_signal_to_one_and_a_call_to_another(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with served(tmp_path, command) as service:
        both = service.pids()
        assert service.detailed() == set()
        os.kill(min(both), signal.SIGUSR2)
        soon(lambda: service.detailed() == both)
        changed = service.lines("logging changed")
        assert {line["process.pid"] for line in changed} == both
        assert {line["labels"]["asked_by"] for line in changed} == {"signal"}
        assert service.control("GET")["level"] == "DEBUG"
        os.kill(max(both), signal.SIGUSR2)
        soon(lambda: service.detailed() == set())
        service.control("PUT", b'{"level":"DEBUG"}')
        soon(lambda: service.detailed() == both)
        service.control("PUT", b'{"level":"DEBUG","for_s":0.1}')
        soon(lambda: service.detailed() == set())
        soon(lambda: len(service.lines("logging is as it is set again")) >= 4)
        assert service.pids() == both


def test_a_server_that_sets_up_logging_again_is_mended(tmp_path: Path) -> None:
    with served(tmp_path, UVICORN) as service:
        service.control("PUT", b'{"level":"DEBUG"}')
        soon(lambda: service.detailed() == service.pids())
        for _ in range(20):
            service.get("/reconfigured")
        before = len(service.lines("detail too"))
        soon(lambda: bool(service.pids()) and len(service.lines("detail too")) > before)
        assert not any("HTTP/1.1" in line["message"] for line in read_lines(tmp_path / "spool"))
        started = service.lines("Application startup complete.")
        assert {line["log.logger"] for line in started} == {"uvicorn.error"}
