"""What the page about logs shows of the terminal is what the commands print."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskscope.logs.spool import Spool
from taskscope_ui.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "logs.md"
SECTION = PAGE.read_text().partition("\n## At the terminal\n")[2].partition("\n## ")[0]
SHOWN = re.findall(r"^\$ (taskscope .*)\n((?:[^$`].*\n)*)", SECTION, re.MULTILINE)
TRACE = {"trace.id": "0af7651916cd43dd8448eb211c80319c", "http.request.id": "9f2c41d07be6"}
ROUTE = {"http.request.method": "POST", "http.route": "/orders/{id}/pay"}
NIGHT = [
    ("03:12:44.101000", "info", "request served",
     {"http.request.method": "GET", "http.route": "/orders", "http.response.status_code": 200,
      "event.duration": 4_310_000, "trace.id": "b7ad6b7169203331b7ad6b7169203331", "span.id": "c1"}),
    ("03:12:45.010000", "info", "payment begun", TRACE | ROUTE | {"span.id": "a1", "labels": {"order": 7}}),
    ("03:12:45.012400", "warning", "card service slow", TRACE | ROUTE
     | {"span.id": "a2", "labels": {"attempt": 1, "answer": "\x1b[2J\r\n03:12:45 INFO all is well"}}),
    ("03:12:47.513000", "error", "payment failed", TRACE | ROUTE
     | {"span.id": "a2", "error.type": "shop.cards.CardTimeout", "error.message": "no answer after 2.5 s",
        "labels": {"order": 7}}),
    ("03:12:47.520300", "error", "request served", TRACE | ROUTE
     | {"span.id": "a1", "http.response.status_code": 504, "event.duration": 2_511_000_000,
        "url.path": "/orders/7/pay", "labels": {"outcome": "timeout"}}),
]  # fmt: skip


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder whose spool holds the lines of that night."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "ELASTICSEARCH_URL",
        "OTEL_SERVICE_NAME",
        "TASKSCOPE_SPOOL",
        "TASKSCOPE_ENVIRONMENT",
    ):
        monkeypatch.delenv(name, raising=False)
    spool = Spool(Path(".taskscope/spool"), max_bytes=1 << 24, segment_bytes=1 << 20)
    for clock, level, message, fields in NIGHT:
        line = {"@timestamp": f"2026-11-24T{clock}Z", "log.level": level, "message": message}
        text = json.dumps(line | {"service.name": "shop"} | fields, separators=(",", ":"))
        spool.write(text.encode() + b"\n")
    yield
    spool.close()


def test_the_page_shows_each_command() -> None:
    told = {command.split()[2] for command, _ in SHOWN}
    assert told == {"tail", "search", "trace", "top"}


@pytest.mark.parametrize(("command", "printed"), SHOWN)
def test_a_command_prints_what_the_page_shows(
    night: None, capsys: pytest.CaptureFixture[str], command: str, printed: str
) -> None:
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    out, err = capsys.readouterr()
    assert _ageless(err + out) == _ageless(printed)


def _ageless(text: str) -> str:
    return re.sub(r"line is .* old", "line is … old", text)
