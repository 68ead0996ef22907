"""`taskscope up` as a person runs it: Ctrl-C, a port in use, an engine that lacks, and a kill that nobody can catch."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from rich.console import Console

from taskscope.testing import waiting
from taskscope.testing.engines.spec import Missing, Spec, clean_env, free_port, taken
from taskscope_ui.stack import Engines, StackState, UpOptions, read_state, running_stack
from taskscope_ui.stack.display import Display, described
from taskscope_ui.stack.part import Absent, Part, Phase, Status
from taskscope_ui.stack.plan import Plan
from taskscope_ui.stack.processes import Group, members, runs

until = partial(waiting.until, within_s=30)

ROOT: Final = Path(__file__).resolve().parents[2]
ENGINE: Final = [pytest.mark.engine, pytest.mark.stack]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "taskscope_ui", "up", "--folder", str(folder), *words]
    return subprocess.Popen(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(folder.parent),
    )


def ready(folder: Path, name: str) -> StackState | None:
    state = read_state(folder)
    part = state.part(name) if state else None
    return state if part is not None and part.phase == "ready" else None


def groups_of(state: StackState) -> list[Group]:
    return [Group(pid=part.pid, began=part.began) for part in state.parts if part.pid]


def alertmanager_of(folder: Path) -> StackState:
    until(lambda: ready(folder, "alertmanager"))
    state = read_state(folder)
    assert state is not None
    return state


@pytest.mark.engine
@pytest.mark.stack
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "stack"
    process = command(folder, "--only", "alertmanager", "--ports", f"alertmanager={free_port()}")
    state = alertmanager_of(folder)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert re.search(
        r"^alertmanager: ready in \d+\.\d s  http://127\.0\.0\.1:\d+$", out, re.MULTILINE
    )
    assert [group for group in groups_of(state) if members(group)] == []


@pytest.mark.engine
@pytest.mark.stack
def test_a_stack_that_was_given_a_time_ends_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    process = command(
        folder, "--only", "alertmanager", "--for", "2", "--ports", f"alertmanager={free_port()}"
    )
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.engine
@pytest.mark.stack
def test_a_kill_that_cannot_be_caught_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    port = free_port()
    process = command(folder, "--only", "alertmanager", "--ports", f"alertmanager={port}")
    state = alertmanager_of(folder)
    process.kill()
    process.communicate(timeout=30)
    until(lambda: not [group for group in groups_of(state) if members(group)])
    until(lambda: not taken(port))
    assert not state.runs


@pytest.mark.engine
@pytest.mark.stack
def test_the_next_start_ends_what_an_earlier_one_left(tmp_path: Path) -> None:
    """Supervisor and watcher both killed, as when a machine runs out of memory."""
    folder = tmp_path / "stack"
    left = _left_behind(folder)
    process = command(
        folder, "--only", "alertmanager", "--for", "2", "--ports", f"alertmanager={free_port()}"
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "ended what an earlier start had left: alertmanager" in out
    assert members(left) == ()


def _left_behind(folder: Path) -> Group:
    import psutil

    process = command(folder, "--only", "alertmanager", "--ports", f"alertmanager={free_port()}")
    state = alertmanager_of(folder)
    part = state.part("alertmanager")
    assert part is not None
    parent = psutil.Process(process.pid)
    (watcher,) = [child for child in parent.children() if child.pid != part.pid]
    watcher.kill()
    process.kill()
    process.communicate(timeout=30)
    group = Group(pid=part.pid, began=part.began)
    assert runs(part.pid, part.began)
    return group


@pytest.mark.engine
def test_a_given_port_that_is_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        process = command(tmp_path / "stack", "--ports", f"api={port}")
        out, err = process.communicate(timeout=30)
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert process.returncode == 2
    assert out == ""
    assert err == (
        f"taskscope: port {port} for api is in use by pid {os.getpid()} ({name}); "
        "free it or give another with --ports api=…\n"
    )
    assert not (tmp_path / "stack" / "prometheus").exists()


def test_a_folder_without_configuration_is_named_with_the_command_that_makes_it(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-m", "taskscope_ui", "up"]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("taskscope: ")
    assert "exporters/generated/prometheus.yml is not there; run taskscope build" in done.stderr
    assert not (tmp_path / ".taskscope").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ports": {"apo": 8000}}, "port 8000 is given for apo, which has none; take one of api, "),
        ({"ports": {"api": 70000}}, "port 70000 for api is no port; take one from 1 to 65535"),
        (
            {"ports": {"api": 80, "page": 80}},
            "api and page are given the same port; give each its own",
        ),
        ({"without": frozenset({"kafka"})}, "there is no part kafka; the parts are api, proxy, "),
        ({"rate": -1}, "rate is -1 requests per second; take 0 to 10000"),
        ({"duration_s": 0}, "duration is 0 s; take more than 0"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_sentence(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=re.escape(sentence)):
        UpOptions(**options)


def lacking(name: str) -> Callable[..., Spec]:
    def make(*_: object, **__: object) -> Spec:
        raise Missing(f"{name} is not installed; run: apt-get install {name}")

    return make


@pytest.mark.engine
@pytest.mark.stack
@pytest.mark.anyio
async def test_what_is_not_installed_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    def no_maven() -> bool:
        raise Missing("elasticsearch is fetched by maven; run: apt-get install maven")

    console = Console(file=StringIO(), width=200)
    display = Display(console)
    engines = replace(
        Engines(), nginx=lacking("nginx"), prometheus=lacking("prometheus"), must_fetch=no_maven
    )
    options = UpOptions(
        folder=tmp_path / "stack",
        project=ROOT,
        without=frozenset({"page", "boards", "traffic"}),
        usual_ports=False,
    )
    async with running_stack(
        options, engines=engines, on_plan=display.planned, on_change=display.changed
    ) as stack:
        await stack.ready("api-1", "alertmanager", within_s=60)
        state = read_state(stack.folder)
    assert state is not None
    remedies = {part.name: part.remedy for part in state.parts if part.remedy}
    assert remedies == {
        "proxy": "apt-get install nginx",
        "prometheus": "apt-get install prometheus",
        "elasticsearch": "apt-get install maven",
    }
    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO from above
    assert "prometheus: prometheus is not installed; run: apt-get install prometheus\n" in shown
    assert "lines stay in the spool; run: apt-get install maven" in shown
    assert stack.address("api") == stack.address("api-1")


@pytest.mark.engine
@pytest.mark.stack
@pytest.mark.anyio
async def test_a_part_that_is_killed_is_shown_as_down_and_the_others_go_on(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=200)
    display = Display(console)
    options = UpOptions(
        folder=tmp_path / "stack",
        project=ROOT,
        without=frozenset({"api", "page", "boards", "traffic", "elasticsearch"}),
        usual_ports=False,
    )
    async with running_stack(options, on_plan=display.planned, on_change=display.changed) as stack:
        await stack.ready(within_s=30)
        os.kill(stack.status("alertmanager").pid, signal.SIGKILL)
        with anyio.fail_after(10):
            while stack.status("alertmanager").phase is not Phase.DOWN:  # noqa: ASYNC110 # no event
                await anyio.sleep(0.02)
        assert stack.status("prometheus").phase is Phase.READY
        state = read_state(stack.folder)
    assert state is not None
    part = state.part("alertmanager")
    assert part is not None
    assert part.phase == "down"
    assert part.detail.startswith("ended with signal SIGKILL: ")
    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO from above
    assert "alertmanager: down: ended with signal SIGKILL: " in shown


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status(name="a"), "waiting"),
        (Status(name="a", detail="waits for b"), "waits for b"),
        (Status(name="a", phase=Phase.READY, took_s=3.21), "ready in 3.2 s"),
        (Status(name="a", phase=Phase.FAILED, detail="no disk"), "failed: no disk"),
    ],
)
def test_a_state_is_told_in_words(status: Status, words: str) -> None:
    assert described(status) == words


def test_on_a_terminal_each_state_stands_in_a_table_with_what_lacks_and_what_to_open() -> None:
    def never() -> Spec:
        raise AssertionError("nothing is started here")

    page = Part(name="page", spec=never, what="capacity page", address="http://127.0.0.1:8501")
    shipper = Part(
        name="shipper", spec=never, what="ships", address="http://127.0.0.1:1", door=False
    )
    absent = Absent(name="proxy", what="nginx", why="not here", remedy="apt-get install nginx")
    screen = StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=100))
    with display:
        display.planned(Plan(parts=(page, shipper), absent=(absent,), addresses={}))
        display.changed(Status(name="page", phase=Phase.READY, took_s=2.0))
        display.changed(Status(name="shipper", phase=Phase.DOWN, detail="ended with [signal] KILL"))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue().rpartition("part ")[2])
    assert re.search(r"page +ready in 2\.0 s +http://127\.0\.0\.1:8501", last)
    assert re.search(r"shipper +down: ended with \[signal\] KILL", last)
    assert re.search(r"proxy +not here; run: apt-get install nginx", last)
    assert re.search(r"capacity page +http://127\.0\.0\.1:8501", last)
    assert "http://127.0.0.1:1 " not in last


@pytest.mark.engine
@pytest.mark.stack
def test_a_part_that_failed_is_the_exit_code_and_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "alertmanager.log").symlink_to(tmp_path / "elsewhere")
    process = command(
        folder, "--only", "alertmanager", "--for", "2", "--ports", f"alertmanager={free_port()}"
    )
    out, err = process.communicate(timeout=30)
    assert "alertmanager: failed: " in out
    assert (process.returncode, err) == (
        2,
        f"taskscope: alertmanager did not run to the end; see the logs in {folder / 'logs'}\n",
    )


@pytest.mark.engine
@pytest.mark.stack
def test_a_reader_who_goes_away_is_no_traceback(tmp_path: Path) -> None:
    words = f"up --folder {tmp_path / 'stack'} --only alertmanager --for 3 --ports alertmanager={free_port()}"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m taskscope_ui {words} | head -n 1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("alertmanager: ready in ")
    assert done.stderr == ""
