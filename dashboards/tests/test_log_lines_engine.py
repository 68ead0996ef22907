"""The questions for log lines against a real Elasticsearch: as Grafana asks and as the preview asks."""

from __future__ import annotations

import json
import re
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from taskscope.testing.engines import HOST, Missing, free_ports, new_password, running
from taskscope.testing.engines import elasticsearch as es
from taskscope_dashboards import boards
from taskscope_dashboards.logquery import LogQuery, lucene, search_body
from taskscope_dashboards.preview import Logs, PreviewError
from taskscope_exporters.render import render
from taskscope_taskapi.catalogue import CATALOGUE

pytestmark = pytest.mark.engine

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOON_MS = 1_781_179_200_000
LINES = (
    {
        "log.level": "info",
        "log.logger": "uvicorn.error",
        "message": "Application startup complete.",
    },
    {
        "log.level": "info",
        "log.logger": "taskapi",
        "http.route": "/api/v1/tasks",
        "message": "listed",
    },
    {
        "log.level": "error",
        "log.logger": "taskapi",
        "http.route": "/api/v1/tasks/{task_id}",
        "error.type": "shop.Refused",
        "trace.id": TRACE,
        "message": "<img src=x onerror=alert(1)>",
    },
    {"log.level": "error", "service.name": "another", "message": "of another service"},
)
ADMIN = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
READER = es.EsUser(name="reader", password=new_password(), role=es.READER)


@dataclass(frozen=True)
class Server:
    url: str

    def call(self, method: str, path: str, body: object, kind: str = "application/json") -> Any:
        data = body if isinstance(body, str) else json.dumps(body)
        token = b64encode(f"{ADMIN.name}:{ADMIN.password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=data.encode(),
            method=method,
            headers={"Content-Type": kind, "Authorization": f"Basic {token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def lucene(self, text: str) -> list[str]:
        """The messages that Grafana would show for a query in Lucene's syntax."""
        body = {"query": {"query_string": {"query": text, "analyze_wildcard": True}}}
        found = self.call("POST", "/logs-taskapi-*/_search", body)
        return sorted(hit["_source"]["message"] for hit in found["hits"]["hits"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An Elasticsearch with the service's own template and four lines."""
    port, transport_port = free_ports(2)
    folder = tmp_path_factory.mktemp("elasticsearch")
    try:
        spec = es.elasticsearch(
            folder, port=port, transport_port=transport_port, users=(ADMIN, READER)
        )
    except Missing as missing:
        pytest.skip(str(missing))
    with running(spec):
        made = Server(f"http://{HOST}:{port}")
        template = json.loads(render(CATALOGUE)["generated/logs-template.json"])
        for kind in ("component_templates", "index_templates"):
            for name, body in template[kind].items():
                made.call("PUT", f"/_{kind.removesuffix('s')}/{name}", body)
        bulk = "".join(
            json.dumps(part) + "\n"
            for line in LINES
            for part in (
                {"create": {}},
                {"@timestamp": NOON_MS, "service.name": CATALOGUE.service, **line},
            )
        )
        answer = made.call(
            "POST", "/logs-taskapi-local/_bulk?refresh=true", bulk, "application/x-ndjson"
        )
        assert not answer["errors"]
        yield made


@pytest.fixture
def reader(server: Server) -> Logs:
    environ = {"ELASTICSEARCH_USERNAME": READER.name, "ELASTICSEARCH_PASSWORD": READER.password}
    return Logs.from_environ(server.url, environ)


def query(slug: str) -> LogQuery:
    board = next(board for board in boards(CATALOGUE) if board.slug == slug)
    return next(panel.logs for panel in board.panels if panel.logs is not None)


def messages(reader: Logs, wanted: LogQuery, **choices: Any) -> list[str]:
    body = search_body(wanted, start_ms=NOON_MS - 1, end_ms=NOON_MS + 1, **choices)
    return sorted(str(line["message"]) for line in reader.search(CATALOGUE.service, body))


def test_the_on_call_board_shows_errors_and_starts_of_its_service(
    server: Server, reader: Logs
) -> None:
    expected = ["<img src=x onerror=alert(1)>", "Application startup complete."]

    assert server.lucene(lucene(query("oncall"))) == expected
    assert messages(reader, query("oncall")) == expected


@pytest.mark.parametrize(
    ("pattern", "search", "expected"),
    [
        (".*", "*", ["<img src=x onerror=alert(1)>", "listed"]),
        (r"(\/api\/v1\/tasks)", "*", ["listed"]),
        (r"(\/api\/v1\/tasks\/\{task_id\})", "*", ["<img src=x onerror=alert(1)>"]),
        (".*", f'trace.id:"{TRACE}"', ["<img src=x onerror=alert(1)>"]),
    ],
)
def test_grafana_s_query_takes_the_board_s_choices(
    server: Server, pattern: str, search: str, expected: list[str]
) -> None:
    text = lucene(query("requests")).replace("${route:regex}", pattern).replace("$search", search)

    assert server.lucene(text) == expected


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({}, ["<img src=x onerror=alert(1)>", "listed"]),
        ({"routes": ["/api/v1/tasks"]}, ["listed"]),
        ({"routes": ['"} OR *']}, []),
        ({"trace": TRACE}, ["<img src=x onerror=alert(1)>"]),
        ({"trace": "*"}, ["<img src=x onerror=alert(1)>", "listed"]),
    ],
)
def test_the_preview_s_query_takes_the_same_choices(
    reader: Logs, choices: dict[str, Any], expected: list[str]
) -> None:
    assert messages(reader, query("requests"), **choices) == expected


ERROR, LISTED, STARTED = (
    "<img src=x onerror=alert(1)>",
    "listed",
    "Application startup complete.",
)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [ERROR, STARTED, LISTED]),
        ({"level": "error"}, [ERROR]),
        ({"route": "/api/v1/tasks"}, [LISTED]),
        ({"exception": "shop.Refused"}, [ERROR]),
        ({"exception": "shop.Refused", "level": "info"}, []),
        ({"trace": TRACE}, [ERROR]),
    ],
)
def test_the_logs_board_narrows_by_all_that_is_chosen_and_shows_lines_without_a_route(
    server: Server, reader: Logs, chosen: dict[str, str], expected: list[str]
) -> None:
    text = lucene(query("logs"))
    for name in ("route", "level", "exception"):
        pattern = re.escape(chosen.get(name, "")).replace("/", r"\/") or ".*"
        text = text.replace(f"${{{name}:regex}}", pattern)
    assert server.lucene(text.replace("$search", chosen.get("trace", "*"))) == expected
    words = {f"{name}s": [value] for name, value in chosen.items() if name != "trace"}
    assert messages(reader, query("logs"), **words, trace=chosen.get("trace", "")) == expected


def test_a_refused_login_says_what_to_check(server: Server) -> None:
    wrong = {"ELASTICSEARCH_USERNAME": READER.name, "ELASTICSEARCH_PASSWORD": "wrong"}

    with pytest.raises(PreviewError, match="status 401; check ELASTICSEARCH_USERNAME"):
        messages(Logs.from_environ(server.url, wrong), query("oncall"))


def test_a_service_without_lines_yet_has_none(reader: Logs) -> None:
    body = search_body(LogQuery(service="unheard"), start_ms=0, end_ms=1)

    assert reader.search("unheard", body) == []
