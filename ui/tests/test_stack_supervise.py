"""The supervisor, with real processes that do little: order, readiness, death, and the end of all of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest

from taskscope.testing import waiting
from taskscope.testing.engines.spec import (
    HttpReady,
    LogReady,
    Spec,
    TcpReady,
    clean_env,
    free_port,
    taken,
)
from taskscope_ui.stack.logfiles import fresh, last_words
from taskscope_ui.stack.part import Part, Phase, Status
from taskscope_ui.stack.ports import Reserved
from taskscope_ui.stack.processes import Group, began, end_groups, members, runs
from taskscope_ui.stack.supervise import Supervisor, stop_order

until = partial(waiting.until_async, within_s=20)

pytestmark = pytest.mark.anyio

SERVES = """
    import http.server, sys
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def script(folder: Path, name: str, code: str, *words: str, port: int = 0) -> Spec:
    return Spec(
        name=name,
        argv=(sys.executable, "-c", textwrap.dedent(code), *words),
        cwd=folder / name,
        env=clean_env(folder),
        ports=(port,) if port else (),
        ready=HttpReady(url=f"http://127.0.0.1:{port}/") if port else LogReady(text="up"),
        stop_grace_s=1.0,
        start_timeout_s=20.0,
    )


def part(spec: Spec, *, needs: tuple[str, ...] = (), step: bool = False) -> Part:
    return Part(name=spec.name, spec=lambda: spec, what="", needs=needs, step=step)


@asynccontextmanager
async def supervised(
    parts: Sequence[Part], folder: Path, heard: Callable[[Status], None] = lambda _: None
) -> AsyncIterator[Supervisor]:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    supervisor = Supervisor(parts, logs=logs, on_change=heard)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.run)
        yield supervisor
        tasks.cancel_scope.cancel()


async def test_a_part_starts_only_after_what_it_needs_is_ready(tmp_path: Path) -> None:
    port, heard = free_port(), list[Status]()
    server = script(tmp_path, "server", SERVES, str(port), port=port)
    client = script(tmp_path, "client", "import time; print('up', flush=True); time.sleep(600)")
    async with supervised(
        [part(client, needs=("server",)), part(server)], tmp_path, heard.append
    ) as supervisor:
        await until(lambda: supervisor.status("client").phase is Phase.READY)
    order = [(status.name, status.phase) for status in heard]
    assert order.index(("server", Phase.READY)) < order.index(("client", Phase.STARTING))


async def test_after_the_stop_no_process_and_no_port_is_left(tmp_path: Path) -> None:
    port = free_port()
    server = script(tmp_path, "server", SERVES, str(port), port=port)
    async with supervised([part(server)], tmp_path) as supervisor:
        await until(lambda: supervisor.status("server").phase is Phase.READY)
        status = supervisor.status("server")
        assert runs(status.pid, status.began)
    assert not psutil.pid_exists(status.pid)
    assert not taken(port)


async def test_a_part_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    async with supervised([part(script(tmp_path, "stubborn", STUBBORN))], tmp_path) as supervisor:
        await until(lambda: supervisor.status("stubborn").phase is Phase.READY)
        status = supervisor.status("stubborn")
        group = Group(pid=status.pid, began=status.began)
        assert len(members(group)) == 2
    assert members(group) == ()


async def test_a_part_that_dies_is_shown_with_its_last_words_and_the_rest_runs(
    tmp_path: Path,
) -> None:
    port = free_port()
    dies = script(
        tmp_path,
        "dies",
        "import sys; print('up', flush=True); sys.stdin.read(); input_line = open(sys.argv[1]).read()"
        "; print('error: the disk is on fire', flush=True); sys.exit(3)",
        str(tmp_path / "signal"),
    )
    os.mkfifo(tmp_path / "signal")
    server = script(tmp_path, "server", SERVES, str(port), port=port)
    async with supervised([part(dies), part(server)], tmp_path) as supervisor:
        await until(lambda: supervisor.status("server").phase is Phase.READY)
        await until(lambda: supervisor.status("dies").phase is Phase.READY)
        await anyio.to_thread.run_sync((tmp_path / "signal").write_text, "now")
        await until(lambda: supervisor.status("dies").phase is Phase.DOWN)
        assert (
            supervisor.status("dies").detail == "ended with exit code 3: error: the disk is on fire"
        )
        assert supervisor.status("server").phase is Phase.READY


async def test_what_a_dead_part_had_started_is_ended_with_it(tmp_path: Path) -> None:
    async with supervised([part(script(tmp_path, "parent", STUBBORN))], tmp_path) as supervisor:
        await until(lambda: supervisor.status("parent").phase is Phase.READY)
        status = supervisor.status("parent")
        os.kill(status.pid, signal.SIGKILL)
        await until(lambda: supervisor.status("parent").phase is Phase.DOWN)
        assert members(Group(pid=status.pid, began=status.began)) == ()
        assert supervisor.status("parent").detail == "ended with signal SIGKILL: up"


async def test_a_failed_part_holds_back_only_what_needs_it(tmp_path: Path) -> None:
    bad = script(tmp_path, "bad", "raise SystemExit('error: no such table')")
    needy = script(tmp_path, "needy", "print('up', flush=True)")
    free = script(tmp_path, "free", "import time; print('up', flush=True); time.sleep(600)")
    async with supervised(
        [part(bad), part(needy, needs=("bad",)), part(free)], tmp_path
    ) as supervisor:
        await until(lambda: supervisor.status("needy").phase.settled)
        await until(lambda: supervisor.status("free").phase.settled)
        phases = {name: supervisor.status(name).phase for name in ("bad", "needy", "free")}
        assert phases == {"bad": Phase.FAILED, "needy": Phase.FAILED, "free": Phase.READY}
        assert supervisor.status("bad").detail == "ended with exit code 1: error: no such table"
        assert supervisor.status("needy").detail == "not started, as bad failed"


async def test_a_step_is_done_when_it_ends_well(tmp_path: Path) -> None:
    step = script(tmp_path, "step", "print('made')")
    then = script(tmp_path, "then", "import time; print('up', flush=True); time.sleep(600)")
    async with supervised(
        [part(step, step=True), part(then, needs=("step",))], tmp_path
    ) as supervisor:
        await until(lambda: supervisor.status("then").phase is Phase.READY)
        assert supervisor.status("step").phase is Phase.DONE


async def test_a_part_that_is_not_ready_in_time_fails_and_is_ended(tmp_path: Path) -> None:
    quiet = replace(
        script(
            tmp_path, "quiet", "import time; print('still loading', flush=True); time.sleep(600)"
        ),
        start_timeout_s=1.0,
    )
    async with supervised([part(quiet)], tmp_path) as supervisor:
        await until(lambda: supervisor.status("quiet").phase is Phase.FAILED)
        assert supervisor.status("quiet").detail == "not ready after 1 s: still loading"
        assert not psutil.pid_exists(supervisor.status("quiet").pid)


async def test_a_port_that_was_taken_meanwhile_is_named(tmp_path: Path) -> None:
    port = free_port()
    one, other = (script(tmp_path, name, SERVES, str(port), port=port) for name in ("one", "other"))
    async with supervised([part(one), part(other, needs=("one",))], tmp_path) as supervisor:
        await until(lambda: supervisor.status("other").phase.settled)
        assert f"port {port} on 127.0.0.1 is taken" in supervisor.status("other").detail


async def test_a_program_that_is_not_there_fails_its_part_with_a_sentence(tmp_path: Path) -> None:
    gone = replace(script(tmp_path, "gone", ""), argv=(str(tmp_path / "nothing"),))
    async with supervised([part(gone)], tmp_path) as supervisor:
        await until(lambda: supervisor.status("gone").phase is Phase.FAILED)
        assert supervisor.status("gone").detail.endswith(
            "No such file or directory; install it anew"
        )


async def test_stopping_while_all_is_still_starting_leaves_nothing(tmp_path: Path) -> None:
    names = [f"part-{number}" for number in range(6)]
    specs = [script(tmp_path, name, "import time; time.sleep(600)") for name in names]
    async with supervised([part(spec) for spec in specs], tmp_path) as supervisor:
        await until(lambda: any(supervisor.status(name).pid for name in names))
    groups = [
        Group(pid=status.pid, began=status.began)
        for status in map(supervisor.status, names)
        if status.pid
    ]
    assert groups
    assert all(members(group) == () for group in groups)


def test_parts_stop_in_the_reverse_order_of_their_needs(tmp_path: Path) -> None:
    specs = {name: script(tmp_path, name, "") for name in ("store", "setup", "shipper", "page")}
    parts = [
        part(specs["store"]),
        part(specs["setup"], needs=("store",)),
        part(specs["shipper"], needs=("setup",)),
        part(specs["page"]),
    ]
    order = [sorted(p.name for p in group) for group in stop_order(parts)]
    assert order == [["shipper"], ["setup"], ["page", "store"]]


def test_a_group_whose_leader_has_another_start_is_not_ours() -> None:
    me = os.getpid()
    assert runs(me, began(me))
    assert not runs(me, began(me) - 1)
    words = [sys.executable, "-c", "input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as leader:
        start = began(leader.pid)
        assert members(Group(pid=leader.pid, began=start)) == (leader.pid,)
        assert members(Group(pid=leader.pid, began=start + 1)) == ()
        leader.communicate(b"\n")


def test_ending_what_has_ended_already_does_nothing() -> None:
    end_groups([Group(pid=2**22 - 3, began=1)])


def test_a_log_starts_afresh_and_the_one_before_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "page.log"
    for text in ("first", "second", "third"):
        fd = fresh(log)
        os.write(fd, text.encode())
        os.close(fd)
    assert (log.read_text(), (tmp_path / "page.log.1").read_text()) == ("third", "second")
    assert log.stat().st_mode & 0o777 == 0o600


def test_last_words_are_the_complaint_without_terminal_codes(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("ok\n\x1b[31merror: no space\x1b[0m\nbye\n\n")
    assert last_words(log, "error") == "error: no space"
    assert last_words(log, "never") == "bye"
    assert last_words(tmp_path / "none.log", "error") == ""


async def test_another_server_that_answers_in_a_parts_place_is_named(tmp_path: Path) -> None:
    """It took the port between the part's start and its listening, as a second stack may."""
    port = free_port()
    lazy = "import time; print('loading', flush=True); time.sleep(600)"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        spec = replace(script(tmp_path, "lazy", lazy), ports=(port,), ready=TcpReady(port=port))
        async with supervised([part(spec)], tmp_path) as supervisor:
            await until(lambda: supervisor.status("lazy").pid > 0)
            other.bind(("127.0.0.1", port))
            other.listen()
            await until(lambda: supervisor.status("lazy").phase.settled)
            assert supervisor.status("lazy").detail.startswith(
                f"port {port} is answered by pid {os.getpid()} ("
            )


def test_a_reserved_port_looks_taken_until_it_is_released() -> None:
    port = free_port()
    with Reserved([port]) as reserved:
        assert taken(port)
        reserved.release(port)
        assert not taken(port)
        reserved.release(port)
