"""The same questions to a real Elasticsearch and to the spool: the same lines, words cut alike, nothing to break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskscope_exporters.logs.reading.conditions import Condition, Is, Like, Phrase, Query, Says
from taskscope_exporters.logs.reading.follow import Follower
from taskscope_exporters.logs.reading.matching import tokens
from taskscope_exporters.logs.reading.reader import Origin, Reader, Where, reading
from taskscope_exporters.logs.reading.words import (
    at_least,
    exactly,
    field_of,
    of_outcome,
    of_status,
    of_trace,
    parse,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

TRACE = "0af7651916cd43dd8448eb211c80319c"

LINES = [
    {"message": "request served", "http.route": "/tasks/{id}", "http.response.status_code": 500,
     "event.duration": 1_200_000_000, "event.outcome": "failure", "log.level": "error",
     "labels": {"outcome": "server_error"}, "trace.id": TRACE, "http.request.id": "req-1"},
    {"message": "request served", "http.route": "/tasks", "http.response.status_code": 201,
     "event.duration": 3_000_000, "event.outcome": "success", "labels": {"outcome": "ok"}},
    {"message": "request served", "http.route": "/livez", "http.response.status_code": 404,
     "event.outcome": "success", "labels": {"outcome": "client_error", "client_request_id": "mine*7"}},
    {"message": "task created", "labels": {"task_id": 4711, "kind": "a b", "nested": {"deep": [1, "two"]}}},
    {"message": "Pool exhausted: no connection after 30.5 s", "log.level": "warning"},
    {"message": "exhausted the pool", "log.level": "critical", "trace.id": TRACE},
    {"message": "upload failed", "log.level": "error", "error.type": "sqlalchemy.exc.OperationalError",
     "error.message": "server closed the connection don't wait",
     "error.stack_trace": "Traceback\n  File \"shop/orders.py\", line 3\nOperationalError: closed\n",
     "error.frames": [{"type": "a", "frames": [{"function": "pay", "line": 3}, {"function": "ask", "line": 4}]}]},
    {"message": "timeout of user_id=7, time-out!", "log.level": "debug"},
    {"message": "日本語のログ déjà vu Straße", "labels": {"*": "x", "flag": True, "ratio": 1.5}},
    {"message": "http://host:8080/a?b=c", "error.type": "builtins.TimeoutError"},
    {"message": "only a \x1b[31m colour", "user.hash": "abc", "url.path": "/tasks/7"},
]  # fmt: skip

QUESTIONS = [
    "", "request", "REQUEST served", "exhausted pool", '"pool exhausted"', '"exhausted pool"',
    "exhaust*", "exh", "time*", "time-out", "timeouterror", "TimeoutErr*", "OperationalError",
    "operational*", "exc.OperationalError", "4711", "47*", "two", '"a b"', "30.5", "don't", "user_id",
    "日本", "日", "déjà", "straße", "host", "host:8080", "true", "1.5", "-request", "-exhausted pool",
    "orders.py", "file", "route:/tasks", "route:/tasks*", "route:*id}", "-route:/livez request",
    "status:500", "status:5xx", "status:>=404", "status:400..500", "status:<500", "duration:>1s",
    "duration:<=3", "duration:3ms..1200ms", "level:error", "level:ERROR", "level:err*", "task_id:4711",
    "task_id:47*", "labels.kind:\"a b\"", 'kind:"a b"', "kind:a", "nested.deep:two", "flag:true",
    "ratio:1.5", "task_id:*", "exception:*", "-exception:* exhausted", "exception:*Operational*",
    "error:closed", "error:\"the connection\"", "event:served", "outcome:failure",
    "outcome:server_error", "outcome:ok", "trace:" + TRACE, "request:req-1", "http://host:8080/a",
    "path:/tasks/7", "user:abc", "nothing:here", "x", '"*"', "a?b", "client_request_id:mine*",
    "error.frames.frames.function:pay", "error.frames.frames.line:4", "error.frames.type:a*", "pay",
]  # fmt: skip


def test_every_question_finds_the_same_lines_in_the_spool_and_in_elasticsearch(
    node: Any, lines: Any
) -> None:
    lines.write(*(lines.line(ago_s=20 - n, **line) for n, line in enumerate(LINES)))
    node.stored(lines.service, lines.spooled())
    asked = {question: parse(question) for question in QUESTIONS}
    asked |= {f"level {level}": (at_least(level),) for level in ("debug", "warning", "critical")}
    asked |= {"status": (of_status("5xx"),), "route": (exactly("http.route", "/t*"),)}
    asked |= {"ids": (of_trace(TRACE),), "id": (of_trace("mine*7"),), "o": (of_outcome("success"),)}
    answers = []
    for origin in (Origin.SPOOL, Origin.ELASTICSEARCH):
        with reader_of(node, lines.service, lines.folder, origin) as reader:
            answers.append(
                {
                    name: [line.text("message") for line in reader.newest(within(60, *given), 100)]
                    for name, given in asked.items()
                }
            )
    from_spool, from_server = answers
    assert from_spool == from_server
    assert len(from_server[""]) == len(LINES)
    empty = [name for name, found in from_server.items() if not found]
    assert empty == [
        '"exhausted pool"', "exh", "host:8080", "-exhausted pool", "kind:a", "nothing:here", '"*"', "pay",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Pool exhausted: no connection after 30.5 s", "don't can’t o'clock' 'x", "a.b.c. d.1 1.a 1,000.5 1;2 3'4",
        "user_id=7 _x_ __ a__b x-y", "key:value 12:30:01 a:1", "déjà Straße ÀÉ", "日本語のログ", "a/b\\c@d#e",
        "0af7651916cd43dd8448eb211c80319c v1.2.3-rc1", "Ωμέγα привет мир", "tab\there\nline", "a·b",
    ],
)  # fmt: skip
def test_words_are_cut_as_the_server_cuts_them(node: Any, text: str) -> None:
    with node.client() as client:
        answer = client.indices.analyze(analyzer="standard", text=text)
    assert tokens(text) == [token["token"] for token in answer["tokens"]]


@contextmanager
def reader_of(
    node: Any, service: str, folder: Path, origin: Origin = Origin.ELASTICSEARCH
) -> Iterator[Reader]:
    where = Where(origin=origin, spool=folder, service=service)
    with reading(where, node.environ(), now=time.time_ns() // 1000) as reader:
        yield reader


def within(seconds: float, *conditions: Condition) -> Query:
    return Query(conditions=conditions, since=time.time_ns() // 1000 - int(seconds * 1e6))


@pytest.fixture(scope="module")
def paged(node: Any) -> str:
    """A service of 1,300 lines, four at each moment."""
    start = datetime.now(UTC) - timedelta(seconds=1300)
    moments = [f"{start + timedelta(seconds=n // 4):%Y-%m-%dT%H:%M:%S.%f}Z" for n in range(1300)]
    node.stored(
        "paged",
        {
            f"{n:04d}": {"@timestamp": at, "service.name": "paged", "labels": {"n": n}}
            for n, at in enumerate(moments)
        },
    )
    return "paged"


@pytest.mark.parametrize("limit", [0, 1, 500, 1250, 2000])
def test_more_lines_than_a_page_come_whole_and_in_order(
    node: Any, paged: str, tmp_path: Path, limit: int
) -> None:
    with reader_of(node, paged, tmp_path) as reader:
        found = [int(line.text("labels.n")) for line in reader.newest(within(3600), limit)]
    newest = list(range(1300))[-limit:] if limit else []
    # Of four lines at one moment any may be the one that does not fit any more.
    assert found[4:] == newest[4:]
    assert len(set(found)) == len(newest)


def test_counts_agree_with_the_spools(node: Any, lines: Any) -> None:
    lines.write(*(lines.line(ago_s=30 - n, **line) for n, line in enumerate(LINES * 2)))
    node.stored(lines.service, lines.spooled())
    answers = []
    for origin in (Origin.SPOOL, Origin.ELASTICSEARCH):
        with reader_of(node, lines.service, lines.folder, origin) as reader:
            answers.append(
                {
                    by: (
                        sorted(
                            (row.value, row.count, row.newest.at, row.newest.text("trace.id"))
                            for row in counts.rows
                        ),
                        counts.lines,
                    )
                    for by in ("exception", "route", "event", "status", "kind", "level")
                    for counts in [reader.top(within(3600), field_of(by), 20)]
                }
            )
    from_spool, from_server = answers
    assert from_spool == from_server
    assert from_spool["status"][0][2][:2] == ("500", 2)


def test_hostile_words_are_only_words(node: Any, lines: Any) -> None:
    hostile = ['"*) OR (*"', "a\\b", "{}[]^~?", "'; DROP", "\x00", "🎉", "x" * 500, "AND", "*:*"]
    lines.write(lines.numbered(1))
    node.stored(lines.service, lines.spooled())
    with reader_of(node, lines.service, lines.folder) as reader:
        for text in hostile:
            for condition in (
                Says(words=text),
                Says(words=text, begins=True),
                Is(field="http.route", value=text),
                Like(field="http.route", pattern=text),
                Like(field="labels.n", pattern=f"{text}*"),
                Phrase(field="message", words=text),
            ):
                assert reader.newest(within(60, condition), 10) == []
        assert len(reader.newest(within(60), 10)) == 1


def test_a_follower_that_can_remember_few_lines_still_shows_each_once(
    node: Any, lines: Any
) -> None:
    now = time.time_ns() // 1000
    shown: list[int] = []
    with reader_of(node, lines.service, lines.folder) as reader:
        follower = Follower(within(60), shown=[], server=reader.server, spool=None, most=25)
        for n in range(6):
            some = {f"{n}-{k}": lines.numbered(n * 100 + k) for k in range(0, 100, 5)}
            node.stored(lines.service, some)
            for _ in range(2):
                shown += [int(line.text("labels.n")) for line in follower.from_server(now=now)]
        follower.close()
    assert shown == list(range(0, 600, 5))
