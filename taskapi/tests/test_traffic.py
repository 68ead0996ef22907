"""The load: counted exactly, on this machine only, and patient with a service that is down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from fastapi import FastAPI

import taskscope
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.errors import SettingsError
from taskscope.testing import waiting
from taskscope.testing.engines import free_port
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope_taskapi.app import create_app
from taskscope_taskapi.catalogue import LOGINS, TASKS_CREATED, TASKS_DELETED, USERS_REGISTERED
from taskscope_taskapi.settings import Settings
from taskscope_taskapi.traffic import Control, drive, loopback_url, read_control

until = partial(waiting.until_async, within_s=20)

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    app: FastAPI
    url: str

    def counted(self, **labels: str) -> float:
        return value(self.app.state.telemetry.registry, REQUEST_DURATION, **labels)


@pytest.fixture
def service(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Served]:
    settings = make_settings(rate_limit=10**6, login_limit=10**6, faults=True)
    app = create_app(settings, telemetry=taskscope.Settings(spool=tmp_path / "spool"))
    with serving(app) as url:
        yield Served(app=app, url=url)


async def test_what_was_answered_is_what_the_service_has_counted(service: Served) -> None:
    summary = await drive(service.url, seed=7, rate=200, requests=150, errors=0.2)
    registry = service.app.state.telemetry.registry
    assert summary.sent == summary.answered == 150 == service.counted()
    for told, count in summary.answers.items():
        method, route, status = told.split()
        labels = {"http_request_method": method, "http_route": route}
        assert service.counted(**labels, http_response_status_code=status) == count
    answers = summary.answers
    assert value(registry, USERS_REGISTERED) == answers["POST /api/v1/auth/register 201"] == 4
    assert value(registry, TASKS_CREATED) == answers["POST /api/v1/tasks 201"]
    assert value(registry, TASKS_DELETED) == answers["DELETE /api/v1/tasks/{task_id} 204"]
    assert value(registry, LOGINS, result="success") == answers["POST /api/v1/auth/login 200"]
    assert summary.by_status["500"] > 10


async def test_faults_come_and_go_with_the_control_file(service: Served, tmp_path: Path) -> None:
    control = tmp_path / "control.json"
    control.write_text(json.dumps({"errors": 1.0, "rate": 100}))
    stop = asyncio.Event()
    load = asyncio.create_task(drive(service.url, seed=7, rate=50, control=control, stop=stop))
    await until(lambda: service.counted(http_response_status_code="500") > 10)
    control.write_text(json.dumps({"errors": 0.0, "rate": 100}))
    await until(lambda: service.counted(http_response_status_code="200") > 20)
    stop.set()
    summary = await load
    assert summary.unanswered == 0


async def test_the_load_ends_by_itself_when_its_time_is_over(service: Served) -> None:
    summary = await drive(service.url, seed=7, rate=50, seconds=0.5)
    assert 0.4 < summary.seconds < 5
    assert summary.answered == summary.sent


async def test_a_service_that_is_down_is_counted_and_found_again_when_it_is_up(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    from uvicorn import Config, Server

    app = create_app(
        make_settings(rate_limit=10**6, login_limit=10**6),
        telemetry=taskscope.Settings(spool=tmp_path / "spool"),
    )
    port, stop = free_port(), asyncio.Event()
    load = asyncio.create_task(drive(f"http://127.0.0.1:{port}", seed=7, rate=50, stop=stop))
    await asyncio.sleep(0.3)
    assert not load.done()
    server = Server(Config(app, port=port, log_config=None))
    server.capture_signals = no_signals  # type: ignore[method-assign] # the test keeps its own
    serving = asyncio.create_task(server.serve())
    registry = app.state.telemetry.registry
    await until(lambda: value(registry, TASKS_CREATED) > 3)
    stop.set()
    summary = await load
    server.should_exit = True
    await serving
    assert summary.unanswered > 0
    assert summary.answered > 0
    assert summary.sent == summary.answered + summary.unanswered


@contextmanager
def no_signals() -> Iterator[None]:
    yield


async def test_a_token_is_changed_before_it_ends(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    app = create_app(
        make_settings(rate_limit=10**6, login_limit=10**6, access_s=61),
        telemetry=taskscope.Settings(spool=tmp_path / "spool"),
    )
    with serving(app) as url:
        summary = await drive(url, seed=7, rate=40, seconds=2.5, users=1)
    assert summary.answers["POST /api/v1/auth/refresh 200"] >= 1
    wrong = summary.answers.get("POST /api/v1/auth/login 401", 0)
    assert summary.by_status.get("401", 0) == wrong


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://10.0.0.1:8000",
        "http://127.0.0.1@example.com/",
        "http://user@127.0.0.1:8000",
        "http://127.0.0.1.example.com",
        "http://0.0.0.0:80",
        "ftp://127.0.0.1",
        "127.0.0.1:8000",
        "",
    ],
)
def test_load_is_sent_to_this_machine_only(url: str) -> None:
    with pytest.raises(SettingsError, match="not on this machine"):
        loopback_url(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://[::1]:80", "http://localhost:1"])
def test_this_machine_has_these_names(url: str) -> None:
    assert loopback_url(url + "/") == url


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"errors": 2}', '{"rate": "fast"}', '{"rate": 0}']
)
def test_a_control_file_that_is_wrong_changes_nothing(tmp_path: Path, text: str) -> None:
    path, before = tmp_path / "control.json", Control(rate=20, errors=0.1)
    path.write_text(text)
    assert read_control(path, before) == before


def test_a_control_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    path.write_text('{"errors": 0.5}')
    assert read_control(path, Control(rate=20)) == Control(rate=20, errors=0.5)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "taskscope_taskapi.traffic", *arguments]


def test_a_url_elsewhere_is_one_sentence() -> None:
    done = subprocess.run(
        command("--url", "http://example.com"), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_the_load_ends_with_its_summary_when_it_is_told_to(service: Served) -> None:
    process = subprocess.Popen(
        command("--url", service.url, "--rate", "50"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    waiting.until(lambda: service.counted() >= 20, within_s=30)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert json.loads(told)["answered"] == service.counted()


async def test_a_service_that_comes_back_with_an_empty_database_is_used_again(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    from sqlalchemy import delete

    from taskscope_taskapi.models import User

    app = create_app(
        make_settings(rate_limit=10**6, login_limit=10**6, access_s=61),
        telemetry=taskscope.Settings(spool=tmp_path / "spool"),
    )
    registry, stop = app.state.telemetry.registry, asyncio.Event()
    with serving(app) as url:
        load = asyncio.create_task(drive(url, seed=7, rate=40, users=1, stop=stop))
        await until(lambda: value(registry, TASKS_CREATED) > 2)
        async with app.state.service.database.writing() as session:
            await session.execute(delete(User))
        await until(lambda: value(registry, USERS_REGISTERED) == 2)
        created = value(registry, TASKS_CREATED)
        await until(lambda: value(registry, TASKS_CREATED) > created)
        stop.set()
        await load
