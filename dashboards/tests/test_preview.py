"""The preview's server: who may ask, what may be asked, and what it says when it cannot answer."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from taskscope.testing.engines import free_port
from taskscope_dashboards.preview import Logs, PreviewError, Prometheus, preview_server
from taskscope_dashboards.preview.__main__ import main
from taskscope_dashboards.preview.runbooks import runbook
from taskscope_dashboards.preview.upstream import loopback
from taskscope_taskapi.catalogue import CATALOGUE

PAGE = Path(__file__).parents[1] / "taskscope_dashboards" / "preview" / "static"

RUNBOOKS = Path(__file__).parents[2] / "alerts" / "runbooks"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """A preview whose Prometheus does not run."""
    made = preview_server(
        CATALOGUE,
        prometheus=Prometheus(f"http://127.0.0.1:{free_port()}"),
        runbooks=RUNBOOKS,
    )
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(5)


def ask(
    server: ThreadingHTTPServer,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_the_page_and_its_boards_are_served(server: ThreadingHTTPServer) -> None:
    status, headers, body = ask(server, "/d/taskapi-oncall")
    listed = json.loads(ask(server, "/api/boards")[2])

    assert status == 200
    assert b"/static/main.js" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert [board["uid"] for board in listed] == [
        "taskapi-oncall",
        "taskapi-requests",
        "taskapi-runtime",
        "taskapi-logs",
    ]


@pytest.mark.parametrize("name", sorted(path.name for path in PAGE.iterdir()))
def test_every_file_of_the_page_is_served(server: ThreadingHTTPServer, name: str) -> None:
    assert ask(server, f"/static/{name}")[0] == 200


@pytest.mark.parametrize("name", ["../server.py", "..%2fserver.py", "", "nothing.js"])
def test_nothing_else_is_served(server: ThreadingHTTPServer, name: str) -> None:
    assert ask(server, f"/static/{name}")[0] == 404


def test_the_runbook_an_alert_links_to_is_read_here_as_plain_text(
    server: ThreadingHTTPServer,
) -> None:
    path = urlsplit(CATALOGUE.links.runbook("AllTargetsDown")).path
    status, headers, body = ask(server, path)

    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert body == (RUNBOOKS / "AllTargetsDown.md").read_bytes()


@pytest.mark.parametrize(
    "name", ["", "None.md", "../README.md", "..%2FREADME.md", "AllTargetsDown"]
)
def test_no_other_file_is_read(server: ThreadingHTTPServer, name: str) -> None:
    assert ask(server, f"/public/runbooks/{name}")[0] == 404


def test_a_link_in_the_folder_of_runbooks_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "Secret.md").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "Fifo.md")
    (tmp_path / "Own.md").write_text("# Own")

    assert [runbook(tmp_path, f"{name}.md") for name in ("Secret", "Fifo", "Own")] == [
        None,
        None,
        b"# Own",
    ]


def test_the_page_asks_no_other_host_and_sets_no_markup_from_text() -> None:
    for file in PAGE.iterdir():
        text = file.read_text("utf-8")
        assert "innerHTML" not in text, file.name
        assert "eval(" not in text, file.name
        assert "https://" not in text, file.name


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "", "127.0.0.1"]
)
def test_a_foreign_host_name_is_refused(server: ThreadingHTTPServer, host: str) -> None:
    status, _, _ = ask(server, "/api/boards", {"Host": host.format(port=server.server_port)})

    assert status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_may_link_here_but_not_read(server: ThreadingHTTPServer, site: str) -> None:
    foreign = {"Sec-Fetch-Site": site}
    navigation = {**foreign, "Sec-Fetch-Mode": "navigate"}

    assert ask(server, "/api/boards", foreign)[0] == 403
    assert ask(server, "/api/boards", navigation)[0] == 403
    assert ask(server, "/d/taskapi-oncall", navigation)[0] == 200


def test_only_get_is_answered(server: ThreadingHTTPServer) -> None:
    assert ask(server, "/api/boards", method="POST")[0] == 501


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("board?uid=nope", "no board 'nope'"),
        ("nope", "no address /api/nope"),
        ("prometheus/admin/tsdb/delete_series?query=up", "no call"),
        ("prometheus/query?time=1", "query has 0 characters"),
        ("prometheus/query?time=1&query=" + "a" * 9000, "query has 9000 characters"),
        ("prometheus/query?query=up&time=1%26x%3D2", "time is '1&x=2'"),
        ("prometheus/query_range?query=up&start=1&end=2&step=../..", "step is '../..'"),
        (
            "prometheus/label_values?label=../../status/config&match=up&start=1&end=2",
            "is not a label",
        ),
        ("prometheus/query?query=up&time=1", "does not answer"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    server: ThreadingHTTPServer, path: str, sentence: str
) -> None:
    status, _, body = ask(server, f"/api/{path}")

    assert status == 400
    assert sentence in json.loads(body)["error"]


def test_without_elasticsearch_there_are_no_lines(server: ThreadingHTTPServer) -> None:
    status, _, body = ask(server, "/api/logs?board=taskapi-oncall&panel=1&from=1&to=2")

    assert (status, json.loads(body)) == (200, {"lines": None})


@pytest.mark.parametrize(
    "url",
    [
        "http://prometheus.example:9090",
        "http://127.0.0.1.evil.example",
        "http://user@127.0.0.1:9090",
        "https://127.0.0.1:9090",
        "ftp://127.0.0.1",
        "127.0.0.1:9090",
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://10.0.0.1:9090",
        "http://0x7f000001:9090",
    ],
)
def test_an_engine_off_loopback_is_refused(url: str) -> None:
    with pytest.raises(PreviewError, match=r"http://127\.0\.0\.1:PORT"):
        loopback(url, "--prometheus")


def test_an_engine_on_loopback_is_taken() -> None:
    assert loopback("http://localhost:9090/", "--prometheus") == "http://localhost:9090"


def test_half_a_login_is_refused() -> None:
    with pytest.raises(PreviewError, match="set both or none"):
        Logs.from_environ("http://127.0.0.1:9200", {"ELASTICSEARCH_USERNAME": "reader"})


def test_a_password_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    environ = {"ELASTICSEARCH_USERNAME": "reader", "ELASTICSEARCH_PASSWORD_FILE": str(file)}

    logs = Logs.from_environ("http://127.0.0.1:9200", environ)

    assert logs.authorization == "Basic cmVhZGVyOnNlY3JldA=="
    assert "Basic" not in repr(logs)


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    environ = {"ELASTICSEARCH_PASSWORD_FILE": str(tmp_path / "nothing")}

    with pytest.raises(PreviewError, match="nothing cannot be read"):
        Logs.from_environ("http://127.0.0.1:9200", environ)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prometheus", "http://example.org"], "is not http on loopback"),
        (
            ["--prometheus", "http://127.0.0.1:9090", "--app", "no_such_module"],
            "no module no_such_module",
        ),
        (
            ["--prometheus", "http://127.0.0.1:9090", "--port", "99999"],
            "port 99999 cannot be taken",
        ),
    ],
)
def test_a_wrong_start_gets_one_line_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(words)
    said = capsys.readouterr().err

    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1


def test_a_taken_port_is_named(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--prometheus", "http://127.0.0.1:9090", "--port", str(server.server_port)])

    assert code == 2
    assert f"port {server.server_port} cannot be taken" in capsys.readouterr().err
