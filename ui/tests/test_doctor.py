"""What the doctor says without any server: of stacks that never ran, have ended, or lack a program.

What it says of a running stack that was broken is tested on one: see `live/test_5_doctor.py`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import psutil
import pytest

from taskscope.testing.engines import free_port
from taskscope_taskapi import CATALOGUE
from taskscope_ui.doctor import Finding, Part, Subject, examine, run, survey
from taskscope_ui.stack import state


def me(name: str = "api-1", **changes: object) -> Part:
    """A part whose process is this one."""
    part = Part(name=name, pid=os.getpid(), started=psutil.Process().create_time())
    return replace(part, **changes)  # type: ignore[arg-type] # the field's own type


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("run", "logs", "secrets", "spool"):
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path


def found(folder: Path, *parts: Part, **changes: object) -> list[str]:
    subject = Subject(folder=folder, catalogue=CATALOGUE, parts=parts)
    return [str(f) for f in anyio.run(examine, replace(subject, **changes))]  # type: ignore[arg-type] # as above


def test_a_folder_without_a_stack_gets_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 1
    assert capsys.readouterr().out == f"{tmp_path}: no stack was started here; run: taskscope up\n"


def test_the_findings_are_one_json_list_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"where": str(tmp_path), "what": "no stack was started here", "remedy": "run: taskscope up"}
    ]


def test_a_stack_that_is_well_gets_silence(folder: Path) -> None:
    assert found(folder, me("traffic")) == []


def test_a_stack_that_has_ended_is_told_in_one_line(folder: Path) -> None:
    gone = me(started=1.0)  # this pid had another owner then
    assert found(folder, gone, supervised=False) == [
        f"{folder}: the stack is not running; run: taskscope up"
    ]


def test_a_stack_that_was_only_just_started_is_not_complained_of(folder: Path) -> None:
    assert found(folder) == []
    url = f"http://127.0.0.1:{free_port()}"
    assert found(folder, me("page", url=url, starting=True, age_s=20.0)) == []
    log = folder / "logs" / "page.log"
    log.write_text("waiting for Godot\n")
    (line,) = found(folder, me("page", url=url, starting=True, age_s=100.0, log=log))
    assert line == (
        f"page: is starting, for 100 s by now; its last line in {log} is: waiting for Godot; read {log}"
    )


def test_parts_whose_supervisor_was_killed_are_told_in_one_line(folder: Path) -> None:
    (line,) = found(folder, me("page"), supervised=False)
    assert "left parts running" in line
    assert line.endswith("; run: taskscope up")


def test_who_took_the_port_of_a_part_that_ended_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        port = thief.getsockname()[1]
        (line,) = found(
            folder, me("traffic"), me("page", started=1.0, url=f"http://127.0.0.1:{port}")
        )
    assert f"port {port} is held by pid {os.getpid()}" in line


def test_a_part_that_could_not_start_says_why(folder: Path) -> None:
    part = me("logs-setup", pid=0, started=0.0, detail="not started, as elasticsearch failed")
    (line,) = found(folder, me("traffic"), part)
    assert line.startswith("logs-setup: not started, as elasticsearch failed; stop the stack")


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"status":"success","data":[]}', b"\xff"])
def test_a_stranger_on_the_port_of_prometheus_or_elasticsearch_is_no_traceback(
    folder: Path, answer: bytes
) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 # the library's name

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        lines = found(folder, me("prometheus", url=url), me("elasticsearch", url=url))
        server.shutdown()
    assert any(
        line.startswith("check of elasticsearch: the answer cannot be read") for line in lines
    )
    assert all("; " in line for line in lines)


def test_one_part_that_has_ended_is_told_with_its_last_words(folder: Path) -> None:
    log = folder / "logs" / "page.log"
    log.write_text("starting\nout of patience\n")
    (line,) = found(folder, me("traffic"), me("page", started=1.0, log=log))
    assert line.startswith(
        f"page: its process has ended; its last line in {log} is: out of patience; "
    )


def test_a_program_that_is_not_installed_is_told_with_its_command(folder: Path) -> None:
    lacking = (("proxy", "nginx is not installed", "apt-get install nginx"),)
    assert found(folder, me("traffic"), missing=lacking) == [
        "proxy: nginx is not installed; run: apt-get install nginx"
    ]


def test_a_port_on_which_nothing_answers_is_told(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    (line,) = found(folder, me("boards", url=url))
    assert line.startswith(f"boards: {url} does not answer (ConnectError); ")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda folder: (folder / "spool").rmdir(), "spool: is missing"),
        (
            lambda folder: ((folder / "spool").rmdir(), (folder / "spool").write_text("")),
            "spool: is not a folder",
        ),
        (
            lambda folder: (folder / "secrets").chmod(0o750),
            "secrets: is open to other users (mode 750)",
        ),
    ],
)
def test_a_folder_that_is_not_as_it_must_be_is_told(
    folder: Path, break_it: object, sentence: str
) -> None:
    break_it(folder)  # type: ignore[operator] # one of the three above
    (line,) = found(folder, me("traffic"))
    assert sentence in line


def test_a_disk_without_room_is_told_for_each_folder(folder: Path) -> None:
    lines = found(folder, me("traffic"), need_free_bytes=2**80)
    assert len(lines) == 4
    assert all("MiB free and needs" in line for line in lines)


def test_steps_that_are_done_are_not_missed(folder: Path) -> None:
    records = tuple(
        state.PartRecord(name=name, phase=phase, pid=1 if phase == "done" else 0, remedy=remedy)
        for name, phase, remedy in (
            ("logs-setup", "done", ""),
            ("page", "waiting", ""),
            ("boards", "absent", ""),
            ("proxy", "absent", "apt-get install nginx"),
        )
    )
    state.write(
        folder,
        state.StackState(
            pid=1, began=1, boot="", project="", traffic_control="", spool="", parts=records
        ),
    )
    subject = survey(folder, CATALOGUE)
    assert subject.parts == ()
    assert [name for name, _, _ in subject.missing] == ["proxy"]


def test_the_readers_password_never_shows(folder: Path) -> None:
    (folder / "secrets" / "elasticsearch_reader").write_text("topsecretword\n")
    subject = survey(folder, CATALOGUE)
    assert subject.elasticsearch_auth == ("reader", "topsecretword")
    assert "topsecretword" not in repr(subject)


def test_a_finding_says_where_what_and_the_remedy() -> None:
    assert str(Finding(where="page", what="is down", remedy="run: taskscope up")) == (
        "page: is down; run: taskscope up"
    )
