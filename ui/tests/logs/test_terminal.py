"""The commands as processes on a spool: in a pipe, on a terminal, with -f, and when something is wrong."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskscope.testing import waiting
from taskscope.testing.engines import free_port
from taskscope_exporters.logs.reading.conditions import Query
from taskscope_exporters.logs.reading.reader import Origin, Where, reading
from taskscope_ui.cli import main

until = partial(waiting.until, within_s=30)
pytestmark = pytest.mark.timeout(120)
HOSTILE = "declined\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 INFO forged \u202e"


@pytest.fixture
def spooled(lines: Any) -> Any:
    """A spool with a request that failed, beside others."""
    for n in range(30):
        lines.write(lines.numbered(n, ago_s=60 - n))
    ended = {
        "log.level": "error", "http.request.method": "POST", "http.route": "/orders/{id}", "trace.id": "feed01",
        "http.response.status_code": 500, "event.duration": 34_000_000, "http.request.id": "r-1",
        "error.type": "builtins.ConnectionError", "error.message": "pool exhausted",
        "error.stack_trace": "Traceback\n\tfile\x1b[2J\n",
    }  # fmt: skip
    lines.write(
        lines.line(HOSTILE, ago_s=3, labels={"note": HOSTILE}, **{"log.level": "warning"}),
        lines.line("request served", ago_s=2, labels={"outcome": "server_error"}, **ended),
    )
    return lines


def env(lines: Any, **more: str) -> dict[str, str]:
    return {"TASKSCOPE_SPOOL": str(lines.folder), "TZ": "UTC", **more}


def test_a_pipe_gets_plain_lines_and_stderr_says_where_they_are_from(
    spooled: Any, terminal: Any
) -> None:
    done = terminal("tail", "-n", "2", env=env(spooled))
    first, second = done.stdout.splitlines()
    assert re.fullmatch(
        r"\S+T\S+\+00:00 WARN +declined\\x1b\[2J\\x1b\]0;owned\\x07\\r\\n2026-01-01 INFO forged \\u202e "
        r'note="declined.*"',
        first,
    )
    assert second.partition(" ")[2] == (
        "ERROR 500  34.0ms POST /orders/{id} request served: ConnectionError: pool exhausted "
        "trace=feed01 request=r-1 outcome=server_error"
    )
    assert re.fullmatch(
        r"taskscope: read from the spool \S+; ELASTICSEARCH_URL is not set; its newest line is \d+ s old\n",
        done.stderr,
    )


def test_json_is_the_documents_as_they_were_written(spooled: Any, terminal: Any) -> None:
    done = terminal("search", "exception:*", "--json", "--level", "error", env=env(spooled))
    (found,) = map(json.loads, done.stdout.splitlines())
    assert found == list(spooled.spooled().values())[-1]


def on_terminal(
    terminal: Any, *words: str, env: dict[str, str], columns: int = 80
) -> tuple[int, str]:
    """Exit code and output of the command on a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    more = {"TERM": "xterm", "COLUMNS": "", "LINES": ""} | env
    process = subprocess.Popen(
        terminal.words(*words),
        env=terminal.environ(more),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.DEVNULL,
    )
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65_536)
        except OSError:  # the last one that held the terminal has ended
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    return process.wait(30), output.decode()


def test_a_terminal_gets_colours_within_its_width_and_no_codes_of_a_lines(
    spooled: Any, terminal: Any
) -> None:
    code, output = on_terminal(terminal, "tail", "-n", "2", env=env(spooled), columns=60)
    assert code == 0
    codes = set(re.findall(r"\x1b[^m]*m", output))
    assert "\x1b[31m" in codes
    assert "\x1b[33m" in codes
    assert all(re.fullmatch(r"\x1b\[[\d;]*m", found) for found in codes)
    plain = re.sub(r"\x1b\[[\d;]*m", "", output)
    assert "\x1b" not in plain
    assert "\\x1b[2J" in plain
    assert max(map(len, plain.split("\r\n"))) <= 60
    assert "trace=feed01" in plain


def test_no_colour_is_honoured(spooled: Any, terminal: Any) -> None:
    _, output = on_terminal(terminal, "tail", env=env(spooled, NO_COLOR="1"))
    assert "\x1b" not in output


def test_a_trace_is_shown_with_its_stack_and_its_end(spooled: Any, terminal: Any) -> None:
    done = terminal("trace", "feed01", "--full", env=env(spooled))
    line, *stack, end = done.stdout.splitlines()
    assert line.startswith(
        "+0.0 ms ERROR 34.0ms POST /orders/{id} → 500 (server_error) request served: ConnectionError: pool exhausted "
    )
    assert stack == ["    | Traceback", "    |     file\\x1b[2J"]
    assert end.endswith("POST /orders/{id} → 500 (server_error) · 1 error (ConnectionError)")


def test_counts_are_a_table(spooled: Any, terminal: Any) -> None:
    done = terminal("top", "--by", "level", env=env(spooled))
    head, *rows = (row.split() for row in done.stdout.splitlines())
    assert head == ["count", "share", "newest", "level", "trace"]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("30", "94%", "info"),
        ("1", "3%", "error"),
        ("1", "3%", "warning"),
    ]


def test_a_follower_of_the_spool_shows_each_line_once_and_ends_silently(
    spooled: Any, terminal: Any
) -> None:
    process = subprocess.Popen(
        terminal.words("tail", "-f", "-n", "1", "--json"),
        env=terminal.environ(env(spooled)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["message"] == "request served"
    shown = []
    for n in range(100, 400):
        spooled.write(spooled.numbered(n))
        if n % 50 == 0:
            shown.append(json.loads(process.stdout.readline())["labels"]["n"])
    while len(shown) < 300:
        shown.append(json.loads(process.stdout.readline())["labels"]["n"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, len(err.splitlines())) == (0, "", 1)
    assert shown == list(range(100, 400))


def test_a_line_written_while_the_first_ones_are_read_is_not_shown_again(spooled: Any) -> None:
    now = time.time_ns() // 1000
    where = Where(origin=Origin.SPOOL, spool=spooled.folder)
    with reading(where, {}, now=now) as reader:
        mark = reader.marked()
        spooled.write(spooled.numbered(1000))
        query = Query(since=now - 3_600_000_000)
        shown = reader.newest(query, 5)
        spooled.write(spooled.numbered(1001))
        follower = reader.follower(query, shown, mark)
        assert shown[-1].text("labels.n") == "1000"
        assert [line.text("labels.n") for line in follower.from_spool()] == ["1001"]
        follower.close()


def test_a_follower_ends_when_nobody_reads(spooled: Any, terminal: Any) -> None:
    process = subprocess.Popen(
        terminal.words("tail", "-f"),
        env=terminal.environ(env(spooled)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()  # no line comes any more, and yet it ends
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert len(process.stderr.read().splitlines()) == 1
    process.stderr.close()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["search", "nothingofthekind"], 1, ""),
        (["trace", "none"], 1, "no line of none within --since 7d; look further back with --since"),
        (["top", "--by", "nothing"], 1, ""),
        (["tail", "--level", "loud"], 2, "level 'loud' is none; take one of debug, info, warning,"),
        (["tail", "--since", "soon"], 2, "'soon' is no time; write it as 10m, 1h30m, 03:12 or"),
        (["search", "--since", "1m", "--until", "1h"], 2, "--until 1h is not after --since 1m;"),
        (["search", '"open'], 2, "'\"open' cannot be read; "),
        (
            ["search", "--status", "bad"],
            2,
            "'bad' is no number for http.response.status_code; write",
        ),
        (
            ["tail", "--service", "a,b"],
            2,
            "--service: 'a,b' is no service's name; write lower-case",
        ),
        (["tail", "--from", "nowhere"], 2, "--from 'nowhere' is none; take auto, elasticsearch or"),
        (["tail", "--spool", "/nonexistent"], 2, "spool /nonexistent does not exist; name the"),
    ],
)
def test_no_line_is_exit_code_1_and_a_mistake_one_sentence_and_2(
    spooled: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TASKSCOPE_SPOOL", str(spooled.folder))
    monkeypatch.delenv("ELASTICSEARCH_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["logs", *words])
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert (ended.value.code, out) == (code, "")
    assert last.startswith(f"taskscope: {says}")


def test_an_elasticsearch_that_does_not_answer_is_said_and_the_spool_is_read(
    spooled: Any, terminal: Any
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = terminal("tail", "-n", "1", env=env(spooled, ELASTICSEARCH_URL=url))
    assert done.returncode == 0
    assert done.stderr.startswith(
        f"taskscope: read from the spool {spooled.folder}: Elasticsearch at {url} does not answer; its newest"
    )


def test_an_elasticsearch_that_does_not_answer_and_no_spool_is_an_error(
    tmp_path: Path, terminal: Any
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = terminal(
        "tail", env={"ELASTICSEARCH_URL": url, "TASKSCOPE_SPOOL": str(tmp_path / "none")}
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"taskscope: Elasticsearch at {url} does not answer; start it, or correct ELASTICSEARCH_URL\n",
    )


@pytest.mark.parametrize("command", ["tail", "search", "trace", "top", "replay"])
def test_every_command_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["logs", command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Example" in shown
    assert re.search(r"Exits 0 .*1 .*2 with an error", " ".join(shown.split()))
