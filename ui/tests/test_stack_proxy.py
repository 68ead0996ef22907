"""nginx's hand-written configuration, before instances that say what reached them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
import pytest

from taskscope.testing.engines import HOST, free_port, nginx, running
from taskscope_ui.stack.configs import listen_conf, upstream_conf

pytestmark = pytest.mark.engine

CONF: Final = Path(__file__).resolve().parents[2] / "taskapi" / "deploy" / "nginx" / "nginx.conf"


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name is the library's
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Instance(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def instance() -> Iterator[Instance]:
    server = Instance((HOST, 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def door(folder: Path, *upstreams: int) -> Iterator[httpx2.Client]:
    port = free_port()
    spec = nginx.nginx(folder / "proxy", ports=(port,), conf=CONF)
    files = {
        **spec.files,
        spec.cwd / "upstream.conf": upstream_conf(upstreams),
        spec.cwd / "listen.conf": listen_conf(port),
    }
    with (
        running(replace(spec, files=files)),
        httpx2.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=10) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with (
        instance() as server,
        door(tmp_path_factory.mktemp("door"), server.server_address[1]) as made,
    ):
        yield made


def reached(client: httpx2.Client, **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found: dict[str, str] = client.get("/api/v1/tasks", headers=named).json()
    return found


def test_what_a_client_claims_about_its_address_goes_no_further(client: httpx2.Client) -> None:
    found = reached(
        client,
        X_Forwarded_For="203.0.113.7, 10.0.0.1",
        X_Real_IP="203.0.113.7",
        Forwarded="for=203.0.113.7",
        X_Forwarded_Host="elsewhere.example",
    )
    assert found["X-Forwarded-For"] == HOST
    assert not {"X-Real-IP", "Forwarded", "X-Forwarded-Host"} & set(found)


def test_a_request_id_that_is_one_is_kept(client: httpx2.Client) -> None:
    assert reached(client, X_Request_ID="order-17.a_b")["X-Request-ID"] == "order-17.a_b"


@pytest.mark.parametrize("planted", ["a b", "x" * 65, '"}{"', "a;b", ""])
def test_a_request_id_that_is_none_is_replaced(client: httpx2.Client, planted: str) -> None:
    found = reached(client, X_Request_ID=planted)["X-Request-ID"]
    assert len(found) == 32
    assert found.isalnum()


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/metrics?x=1", "/./metrics"])
def test_what_is_for_those_who_run_the_service_is_not_there(
    client: httpx2.Client, path: str
) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_its_own_health_answers_beside_it(client: httpx2.Client) -> None:
    assert client.get("/nginx-health").status_code == 204


@pytest.mark.parametrize(
    ("status", "code", "request_"),
    [
        (413, "payload_too_large", {"method": "POST", "url": "/a", "content": b"x" * 1_048_577}),
        (414, "uri_too_long", {"method": "GET", "url": f"/{'a' * 20_000}"}),
        (
            431,
            "headers_too_large",
            {"method": "GET", "url": "/a", "headers": {"X-A": "a" * 20_000}},
        ),
    ],
)
def test_each_refusal_is_in_the_envelope_with_the_request_s_id(
    client: httpx2.Client, status: int, code: str, request_: dict[str, Any]
) -> None:
    response = client.request(**request_)
    body = response.json()
    assert (response.status_code, body["error"]["code"]) == (status, code)
    assert (body["success"], body["data"]) == (False, None)
    assert body["meta"]["request_id"]


def test_what_is_no_request_at_all_is_refused_in_the_envelope(client: httpx2.Client) -> None:
    port = client.base_url.port
    assert port is not None
    with socket.create_connection((HOST, port), timeout=5) as raw:
        raw.sendall(b"GET /a b c HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "bad_request"


def test_the_paths_of_the_refusals_are_not_for_clients(client: httpx2.Client) -> None:
    response = client.get("/fault/body_too_large")
    assert response.status_code == 404


def test_a_read_goes_to_the_other_instance_when_one_is_gone(tmp_path: Path) -> None:
    with instance() as server, door(tmp_path, free_port(), server.server_address[1]) as client:
        assert [client.get("/").status_code for _ in range(6)] == [200] * 6


def test_without_any_instance_the_answer_says_to_try_again(tmp_path: Path) -> None:
    with door(tmp_path, free_port()) as client:
        response = client.post("/api/v1/tasks", json={})
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "bad_gateway"


def test_nothing_is_opened_outside_the_stacks_folder(tmp_path: Path) -> None:
    """Its usual log files belong to root: to open one would keep a plain user's nginx from starting."""
    port = free_port()
    spec = nginx.nginx(tmp_path / "proxy", ports=(port,), conf=CONF)
    beside = {"upstream.conf": upstream_conf((free_port(),)), "listen.conf": listen_conf(port)}
    files = {**spec.files, **{spec.cwd / name: text for name, text in beside.items()}}
    with running(replace(spec, files=files)) as server:
        opened = {Path(file.path) for file in psutil.Process(server.pid).open_files()}
    assert {path for path in opened if not path.is_relative_to(spec.cwd)} == set()
