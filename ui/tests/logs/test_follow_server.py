"""The commands as processes on a real Elasticsearch: -f without gaps and repeats, and what is said on stderr."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskscope.logs.segments import Line
from taskscope.testing import waiting
from taskscope.testing.faultproxy import TcpProxy
from taskscope_exporters.logs.deadletters import Letter, bury

until = partial(waiting.until, within_s=30)
pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def following(
    terminal: Any, *more: str, env: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`tail -f` under way, with the file that its output goes to; it has looked once already."""
    with tempfile.TemporaryDirectory() as folder:
        out, said = Path(folder) / "out", Path(folder) / "err"
        with out.open("w") as stdout, said.open("w") as stderr:
            process = subprocess.Popen(
                terminal.words("tail", "-f", "--json", *more),
                env=terminal.environ(env),
                stdout=stdout,
                stderr=stderr,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        try:
            until(lambda: "its newest line" in said.read_text() or "no line" in said.read_text())
            yield process, out
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert "Traceback" not in said.read_text()


def numbers(out: Path) -> list[int]:
    return [json.loads(line)["labels"]["n"] for line in out.read_text().splitlines()]


def test_what_is_not_shipped_yet_stands_beside_what_is_and_nothing_twice(
    node: Any, lines: Any, terminal: Any
) -> None:
    lines.write(*(lines.numbered(n, ago_s=9 - n) for n in range(6)))
    shipped = dict(sorted(lines.spooled().items())[:4])
    node.stored(lines.service, shipped | {"elsewhere-0": lines.numbered(100, ago_s=0)})
    env = node.environ() | {"TASKSCOPE_SPOOL": str(lines.folder)}
    done = terminal("tail", "--json", "--service", lines.service, env=env)
    assert [json.loads(line)["labels"]["n"] for line in done.stdout.splitlines()] == [
        0, 1, 2, 3, 4, 5, 100,
    ]  # fmt: skip
    assert done.stderr.startswith(f"taskscope: read from Elasticsearch at {node.url} and the spool")


def test_a_follower_shows_each_line_once_however_late_and_in_whatever_order_it_comes(
    node: Any, lines: Any, terminal: Any
) -> None:
    node.stored(lines.service, {"first": lines.numbered(-1)})
    with following(terminal, "--service", lines.service, env=node.environ()) as (_, out):
        expected = [-1]
        for n in range(40):
            # Some at the same moment, some half a minute late.
            some = {f"{n}-{k}": lines.numbered(n * 10 + k, ago_s=k % 3 * 15) for k in range(10)}
            node.stored(lines.service, some)
            expected += [n * 10 + k for k in range(10)]
        burst = {f"burst-{n}": lines.numbered(1000 + n) for n in range(1200)}
        node.stored(lines.service, burst)
        expected += [1000 + n for n in range(1200)]
        until(lambda: len(numbers(out)) >= len(expected))
        node.stored(lines.service, {"late": lines.numbered(5000, ago_s=30)})
        until(lambda: 5000 in numbers(out))
        assert sorted(numbers(out)) == [*expected, 5000]


def test_a_follower_goes_on_after_elasticsearch_was_away_and_shows_the_spool_meanwhile(
    node: Any, lines: Any, terminal: Any
) -> None:
    with TcpProxy(to_port=int(node.url.rpartition(":")[2])) as proxy:
        node.stored(lines.service, {"first": lines.numbered(0)})
        env = node.environ() | {
            "ELASTICSEARCH_URL": proxy.url,
            "TASKSCOPE_SPOOL": str(lines.folder),
        }
        with following(terminal, "--service", lines.service, env=env) as (_, out):
            until(lambda: numbers(out) == [0])
            proxy.refuse()
            lines.write(lines.numbered(1))
            node.stored(lines.service, {"meanwhile": lines.numbered(2)})
            until(lambda: numbers(out) == [0, 1])
            proxy.heal()
            until(lambda: numbers(out) == [0, 1, 2])
            # Now the spool's line is shipped: it has been shown.
            node.stored(lines.service, lines.spooled() | {"last": lines.numbered(3)})
            until(lambda: 3 in numbers(out))
            assert numbers(out) == [0, 1, 2, 3]


def test_a_request_id_leads_to_the_whole_trace(node: Any, lines: Any, terminal: Any) -> None:
    ended = {
        "http.route": "/tasks/{id}", "http.response.status_code": 500, "event.duration": 1_200_000_000,
        "trace.id": TRACE, "http.request.id": "req-1", "log.level": "error",
    }  # fmt: skip
    lines.write(
        lines.line("request served", ago_s=30, labels={"outcome": "server_error"}, **ended),
        lines.line("another request", ago_s=29),
        lines.line("exhausted the pool", ago_s=25, **{"trace.id": TRACE, "log.level": "critical"}),
    )
    node.stored(lines.service, lines.spooled())
    done = terminal(
        "trace", "req-1", "--service", lines.service, "--since", "1h", env=node.environ()
    )
    first, second, last = done.stdout.splitlines()
    assert "ERROR 1.20s /tasks/{id} → 500 (server_error) request served" in first
    assert first.startswith("   +0.0 ms ")
    assert second.split()[2:6] == ["CRIT", "exhausted", "the", "pool"]
    assert last.startswith(f"req-1: 2 lines of {lines.service} · 5.00s from ")
    assert last.endswith("· /tasks/{id} → 500 (server_error) · 2 errors")


def test_a_login_that_may_not_read_is_said_in_one_line(
    node: Any, terminal: Any, tmp_path: Path
) -> None:
    env = node.environ("shipper") | {"TASKSCOPE_SPOOL": str(tmp_path / "none")}
    done = terminal("tail", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"taskscope: Elasticsearch at {node.url} does not let this login read (403); give it read on logs-*; a key "
        "that ships cannot read\n"
    )


def test_where_elasticsearch_refuses_the_spool_is_read_and_said(
    node: Any, lines: Any, terminal: Any
) -> None:
    lines.write(lines.numbered(7))
    env = node.environ() | {
        "ELASTICSEARCH_PASSWORD": "wrong",
        "TASKSCOPE_SPOOL": str(lines.folder),
    }
    done = terminal("tail", "--json", env=env)
    assert [json.loads(line)["labels"]["n"] for line in done.stdout.splitlines()] == [7]
    assert re.fullmatch(
        f"taskscope: read from the spool {lines.folder}: Elasticsearch at {node.url} does not know this login "
        r"\(401\); its newest line is \d+ s old\n",
        done.stderr,
    )


def test_dead_letters_are_shown_sent_again_and_what_is_refused_again_stays(
    node: Any, lines: Any, terminal: Any
) -> None:
    node.stored("taskapi", {f"template-{lines.service}": lines.numbered(0)})
    letters = [
        (lines.line("mended"), "document_parsing_exception", "no such\x1b[2J"),
        (lines.line("mended too"), "document_parsing_exception", "other"),
        (lines.line("wrong still") | {"@timestamp": "yesterday"}, "illegal_argument", "no date"),
    ]
    bury(
        lines.folder,
        [
            Letter(
                line=Line(id=f"{lines.service}-{n}", raw=json.dumps(document).encode() + b"\n"),
                kind=kind,
                reason=reason,
            )
            for n, (document, kind, reason) in enumerate(letters)
        ],
        now=0,
    )
    env = node.environ("admin") | {"TASKSCOPE_SPOOL": str(lines.folder)}
    shown = terminal("replay", "--dry-run", env=env)
    assert (shown.returncode, shown.stderr) == (
        1,
        f"taskscope: 3 dead letters in {lines.folder}, for {node.url}\n",
    )
    table = [row.split(maxsplit=2) for row in shown.stdout.splitlines()]
    assert table[1:] == [
        ["2", "document_parsing_exception", "no such\\x1b[2J"],
        ["1", "illegal_argument", "no date"],
    ]
    done = terminal("replay", "--json", env=env)
    found = json.loads(done.stdout)
    assert (done.returncode, found["stored"], sum(found["left"].values())) == (1, 2, 1)
    again = terminal("replay", env=env)
    assert again.returncode == 1
    assert [row.split() for row in again.stdout.splitlines()][-3:-1] == [
        ["stored", "0"],
        ["stored", "before", "0"],
    ]
    with node.client() as client:
        client.indices.refresh(index="logs-taskapi-local")
        query = {"ids": {"values": [f"{lines.service}-{n}" for n in range(3)]}}
        assert client.count(index="logs-taskapi-local", query=query)["count"] == 2
