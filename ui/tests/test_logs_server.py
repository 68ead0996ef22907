"""The terminal's commands on a real Elasticsearch: the same lines as the spool gives, each once, also with -f."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from taskscope.logs.looking import newest_first
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope.testing.engines import HOST, Missing, free_ports, new_password, running
from taskscope.testing.engines import elasticsearch as es
from taskscope_exporters.logs.reading.conditions import Query
from taskscope_exporters.logs.reading.matching import tokens
from taskscope_exporters.logs.reading.reader import Origin, Where, reading
from taskscope_exporters.logs.reading.words import (
    at_least,
    exactly,
    of_outcome,
    of_status,
    of_trace,
    parse,
)

until = partial(waiting.until, within_s=30)
pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

ADMIN = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
READER = es.EsUser(name="reader", password=new_password(), role=es.READER)
SHIPPER = es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER)
TRACE = "0af7651916cd43dd8448eb211c80319c"
EMPTY = {"ELASTICSEARCH_URL", "OTEL_SERVICE_NAME", "TASKSCOPE_ENVIRONMENT", "TASKSCOPE_SPOOL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    url: str

    def client(self) -> Elasticsearch:
        return Elasticsearch(self.url, basic_auth=(ADMIN.name, ADMIN.password))

    def environ(self, user: es.EsUser = READER) -> dict[str, str]:
        return {
            "ELASTICSEARCH_URL": self.url,
            "ELASTICSEARCH_USERNAME": user.name,
            "ELASTICSEARCH_PASSWORD": user.password,
        }


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    port, transport_port = free_ports(2)
    folder = tmp_path_factory.mktemp("elasticsearch")
    try:
        spec = es.elasticsearch(
            folder, port=port, transport_port=transport_port, users=[ADMIN, READER, SHIPPER]
        )
    except Missing as missing:
        pytest.skip(str(missing))
    with running(spec):
        yield Node(url=f"http://{HOST}:{port}")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16)
    yield made
    made.close()


@pytest.fixture
def service() -> str:
    """A name that no other test's stream has."""
    return f"shop-{secrets.token_hex(4)}"


def installed(client: Elasticsearch, service: str) -> None:
    """The mappings that `logs setup` puts, in an index template of their own."""
    from taskscope_exporters.logs.template import log_template

    component = log_template(service).component.body["template"]
    client.indices.put_index_template(
        name=f"logs-{service}",
        index_patterns=[f"logs-{service}-*"],
        data_stream={},
        priority=300,
        template=component,  # type: ignore[arg-type] # as the server takes it
    )


def stored(
    client: Elasticsearch, service: str, documents: Mapping[str, Mapping[str, object]]
) -> None:
    """The documents can be found in the service's stream under their ids."""
    operations: list[Mapping[str, object]] = []
    for key, found in documents.items():
        operations += [{"create": {"_id": key}}, found]
    answer = client.bulk(index=f"logs-{service}-local", operations=operations, refresh=True)
    assert not answer["errors"], answer


def document(
    service: str, message: str, *, ago_s: float = 1.0, **more: object
) -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    return {
        "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
        "log.level": "info",
        "message": message,
        "service.name": service,
        "service.environment": "local",
    } | more


def write(spool: Spool, *documents: Mapping[str, object]) -> None:
    for one in documents:
        spool.write(json.dumps(one, ensure_ascii=False).encode() + b"\n")


def in_spool(spool: Spool) -> dict[str, dict[str, object]]:
    """What the spool holds, by id."""
    return {line.id: json.loads(line.raw) for line in newest_first(spool.folder, since=0)}


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "taskscope_ui", "logs", *more]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in EMPTY} | dict(more)


def run(*more: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words(*more), env=environment(env), capture_output=True, text=True, timeout=60, check=False
    )


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
     "error.stack_trace": "Traceback\n  File \"shop/orders.py\", line 3\nOperationalError: closed\n"},
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
]  # fmt: skip


def test_every_question_finds_the_same_lines_in_the_spool_and_in_elasticsearch(
    node: Node, spool: Spool, service: str
) -> None:
    write(spool, *(document(service, ago_s=20 - n, **line) for n, line in enumerate(LINES)))
    with node.client() as client:
        installed(client, service)
        stored(client, service, in_spool(spool))
    now = time.time_ns() // 1000
    asked = {question: parse(question) for question in QUESTIONS}
    asked |= {f"level {level}": (at_least(level),) for level in ("debug", "warning", "critical")}
    asked |= {"status": (of_status("5xx"),), "route": (exactly("http.route", "/t*"),)}
    asked |= {"ids": (of_trace(TRACE),), "id": (of_trace("mine*7"),), "o": (of_outcome("success"),)}
    environ = node.environ()
    answers = []
    for origin in (Origin.SPOOL, Origin.ELASTICSEARCH):
        where = Where(origin=origin, spool=spool.folder, service=service)
        with reading(where, environ, now=now) as reader:
            answers.append(
                {
                    name: [
                        line.text("message")
                        for line in reader.newest(
                            Query(conditions=conditions, since=now - 60_000_000), 100
                        )
                    ]
                    for name, conditions in asked.items()
                }
            )
    from_spool, from_server = answers
    assert from_spool == from_server
    assert len(from_server[""]) == len(LINES)
    empty = [name for name, found in from_server.items() if not found]
    assert empty == [
        '"exhausted pool"', "exh", "host:8080", "-exhausted pool", "kind:a", "nothing:here", '"*"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Pool exhausted: no connection after 30.5 s", "don't can’t o'clock' 'x", "a.b.c. d.1 1.a 1,000.5 1;2 3'4",
        "user_id=7 _x_ __ a__b x-y", "key:value 12:30:01 a:1", "déjà Straße ÀÉ", "日本語のログ", "a/b\\c@d#e",
        "0af7651916cd43dd8448eb211c80319c v1.2.3-rc1", "Ωμέγα привет мир", "tab\there\nline", "a·b",
    ],
)  # fmt: skip
def test_words_are_cut_as_the_server_cuts_them(node: Node, text: str) -> None:
    with node.client() as client:
        answer = client.indices.analyze(analyzer="standard", text=text)
    assert tokens(text) == [token["token"] for token in answer["tokens"]]
