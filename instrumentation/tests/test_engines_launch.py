"""Starting, waiting, stopping: on a server that is a shell, so that each fault can be planted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from taskscope.testing.engines import (
    HOST,
    EngineError,
    LogReady,
    Spec,
    TcpReady,
    free_port,
    free_ports,
    members,
    new_password,
    place,
    running,
    start,
)
from taskscope.testing.engines import spec as spec_module
from taskscope.testing.waiting import until

PASSWORD = "a-password_of-tests"
HEADLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
SLEEPER = ("/bin/sh", "-c", "echo up; exec sleep 300")


def a_sleeper(folder: Path) -> Spec:
    return Spec(
        name="sleeper",
        argv=SLEEPER,
        cwd=folder / "sleeper",
        ready=LogReady(text="up"),
        ports=(),
    )


def exists(pid: int) -> bool:
    """Whether the process runs; one that ended and awaits its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def group_of(leader: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if exists(pid) and group(pid) == leader]


def group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        spec = replace(a_sleeper(tmp_path), ports=(port,))

        with pytest.raises(EngineError, match=rf"^sleeper: port {port} on 127\.0\.0\.1 is taken; "):
            start(spec)

    assert not spec.cwd.exists()


def test_a_server_that_does_not_come_up_in_time_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    words = ("/bin/sh", "-c", f"echo $$ > {pid_file}; sleep 300 & sleep 300")
    spec = replace(
        a_sleeper(tmp_path), argv=words, ready=TcpReady(port=free_port()), start_timeout_s=0.3
    )

    with pytest.raises(EngineError, match=r"^sleeper: not ready after 0\.3 s: it wrote nothing; "):
        start(spec)

    assert group_of(int(pid_file.read_text())) == []


def test_a_server_that_ignores_the_polite_signal_is_ended_after_its_grace(tmp_path: Path) -> None:
    words = ("/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    server = start(replace(a_sleeper(tmp_path), argv=words, stop_grace_s=0.3))

    server.stop()

    assert group_of(server.pid) == []


def test_what_a_server_leaves_in_its_group_is_ended_with_it(tmp_path: Path) -> None:
    words = ("/bin/sh", "-c", "sleep 300 & echo up; exec sleep 300")
    server = start(replace(a_sleeper(tmp_path), argv=words))
    before = group_of(server.pid)

    server.stop()

    assert len(before) == 2
    assert group_of(server.pid) == []


def test_a_server_whose_first_thread_ended_runs_until_the_others_did(tmp_path: Path) -> None:
    words = (sys.executable, "-c", HEADLESS)
    server = start(replace(a_sleeper(tmp_path), argv=words))
    until(lambda: not exists(server.pid), within_s=10)
    before = members(server.pid)

    server.kill()

    assert before == [server.pid]
    assert members(server.pid) == []


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = replace(a_sleeper(tmp_path), argv=(str(tmp_path / "gone"),))

    with pytest.raises(EngineError, match=r"^sleeper: .*gone: No such file or directory; "):
        start(spec)


ORPHANED = """
import sys, signal
from pathlib import Path
from taskscope.testing.engines import LogReady, Spec, start
server = start(Spec(name="sleeper", argv=("/bin/sh", "-c", "sleep 300 & echo up; sleep 300"),
                    cwd=Path(sys.argv[1]), ready=LogReady(text="up"), ports=()))
print(server.pid, flush=True)
signal.pause()
"""


def test_servers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ORPHANED, str(tmp_path / "sleeper")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert group_of(server) != []

        parent.send_signal(signal.SIGKILL)

    until(lambda: group_of(server) == [], within_s=20)


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    servers = []
    thread = threading.Thread(target=lambda: servers.append(start(a_sleeper(tmp_path))))
    thread.start()
    thread.join()

    alive = servers[0].alive
    servers[0].stop()

    assert alive


def test_a_printed_spec_holds_no_password(tmp_path: Path) -> None:
    spec = replace(
        a_sleeper(tmp_path), files={tmp_path / "conf": PASSWORD}, env={"PASSWORD": PASSWORD}
    )

    assert PASSWORD not in repr(spec)


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    spec = a_sleeper(tmp_path)
    file = spec.cwd / "conf" / "secret"

    with running(replace(spec, files={file: PASSWORD})):
        modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, spec.cwd, spec.log)]

    assert modes == [0o600, 0o700, 0o700, 0o600]


def test_a_folder_closed_to_the_servers_account_gets_a_stand_in_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "ROOT_STATE", tmp_path / "state")
    tmp_path.chmod(0o700)
    owner = spec_module.unprivileged()
    folders = [tmp_path / "first", tmp_path / "second"]
    placed = [place.place(folder, owner) for folder in folders]
    specs = [
        replace(a_sleeper(tmp_path), cwd=cwd, files=place.origin_of(folder, cwd))
        for folder, cwd in zip(folders, placed, strict=True)
    ]
    place.lay_out(specs[0])
    shutil.rmtree(folders[0])

    place.lay_out(specs[1])

    assert [cwd.parent for cwd in placed] == [tmp_path / "state"] * 2
    assert [cwd.exists() for cwd in placed] == [False, True]


def test_a_new_folder_of_an_old_name_has_nothing_of_the_old_ones_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "ROOT_STATE", tmp_path / "state")
    tmp_path.chmod(0o700)
    folder = tmp_path / "server"
    cwd = place.place(folder, spec_module.unprivileged())
    spec = replace(a_sleeper(tmp_path), cwd=cwd, files=place.origin_of(folder, cwd))
    place.lay_out(spec)
    (cwd / "data").write_text("of the first")
    place.lay_out(spec)
    assert (cwd / "data").exists()
    shutil.rmtree(folder)
    folder.mkdir()

    place.lay_out(spec)

    assert not (cwd / "data").exists()


def test_free_ports_differ_and_passwords_too() -> None:
    assert len(set(free_ports(50))) == 50
    assert new_password() != new_password()
