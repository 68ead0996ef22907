"""The proxies that fail on purpose: each fault is what a client of a real socket sees, and the truth is behind it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

import pytest

from taskscope.testing import waiting
from taskscope.testing.faultproxy import BulkFaults, BulkProxy, TcpProxy

until = partial(waiting.until, within_s=5)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(65_536):
                    connection.sendall(piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.fixture
def proxy(echo: int) -> Iterator[TcpProxy]:
    with TcpProxy(to_port=echo) as made:
        yield made
    assert not [each for each in threading.enumerate() if each.name == "faultproxy-tcp"]


def client(proxy: TcpProxy, *, timeout_s: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout_s)


def is_reset(proxy: TcpProxy) -> bool:
    """Whether a new connection is reset, be it while it is made or after."""
    with pytest.raises(ConnectionResetError), client(proxy) as connection:
        connection.recv(1)
    return True


def whole(connection: socket.socket) -> bytes:
    return b"".join(iter(partial(connection.recv, 65_536), b""))


def test_bytes_pass_whole_and_both_ends_are_told_of_the_other_s_end(proxy: TcpProxy) -> None:
    said = bytes(range(256)) * 4000
    with client(proxy) as connection:
        threading.Thread(
            target=lambda: (connection.sendall(said), connection.shutdown(socket.SHUT_WR))
        ).start()
        assert whole(connection) == said
    assert proxy.counts == {"connections": 1, "up": len(said), "down": len(said)}


def test_latency_delays_and_a_rate_throttles(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        for told, size in ((lambda: proxy.latency(0.1), 10), (lambda: proxy.rate(40_000), 4096)):
            told()
            start = monotonic()
            connection.sendall(b"x" * size)
            left = size
            while left:
                left -= len(connection.recv(left))
            assert 0.1 <= monotonic() - start < 3


def test_a_black_hole_answers_nothing_and_half_of_one_hears_all(proxy: TcpProxy) -> None:
    for told, heard in ((proxy.blackhole, 0), (proxy.half, 5)):
        proxy.heal()
        proxy.counts.clear()
        with client(proxy, timeout_s=0.2) as connection:
            told()
            connection.sendall(b"hello")
            with pytest.raises(TimeoutError):
                connection.recv(10)
            until(lambda: proxy.counts["up"] == 5)
            assert proxy.counts["down"] == heard
            proxy.heal()
            with pytest.raises(ConnectionResetError):
                connection.recv(10)


def test_cut_and_refuse_reset_and_healed_is_healed(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    proxy.refuse()
    assert is_reset(proxy)
    proxy.heal()
    with client(proxy) as connection:
        connection.sendall(b"again")
        assert connection.recv(10) == b"again"


def test_half_an_answer_arrives_before_the_reset(proxy: TcpProxy) -> None:
    proxy.reset_after(3)
    with client(proxy) as connection:
        connection.sendall(b"hello")
        until(lambda: proxy.counts["resets"])
        with pytest.raises(ConnectionResetError):
            whole(connection)
    assert proxy.counts["down"] == 5


def test_a_server_that_is_not_there_resets_its_clients() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with TcpProxy(to_port=free.getsockname()[1]) as proxy:
            assert is_reset(proxy)


class Store(ThreadingHTTPServer):
    """Answers bulk requests and keeps the ids."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.ids: list[str] = []
        self.paths: list[str] = []


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_POST(self) -> None:  # the standard library's name
        parts = self.rfile.read(int(self.headers["Content-Length"])).split(b"\n")[:-1]
        ids = [json.loads(part)["create"]["_id"] for part in parts[::2]]
        self.server.ids += ids
        self.server.paths.append(self.path)
        items = [{"create": {"_id": name, "status": 201}} for name in ids]
        body = json.dumps({"took": 1, "errors": False, "items": items}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(5)


def bulk(proxy: BulkProxy, count: int) -> Any:
    lines = [b'{"create":{"_id":"id%d"}}\n{"n":%d}\n' % (n, n) for n in range(count)]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    try:
        path = "/logs/_bulk?filter_path=errors&require_data_stream=true"
        connection.request("POST", path, b"".join(lines))
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()


def test_withheld_lines_are_reported_and_the_server_has_exactly_the_others(store: Store) -> None:
    faults = BulkFaults(p429=0.2, p503=0.1, p400=0.1)
    with BulkProxy(store.server_port, faults=faults, seed=7) as proxy:
        status, _, body = bulk(proxy, 1000)
    found = {item["create"]["_id"]: item["create"]["status"] for item in body["items"]}
    assert status == 200
    assert body["errors"] is True
    assert list(found) == [f"id{n}" for n in range(1000)]
    assert [name for name, each in found.items() if each == 201] == store.ids
    assert {name for name, each in found.items() if each == 400} == proxy.refused
    for fault in ("p429", "p503", "p400"):
        assert proxy.counts[fault] == sum(str(each) == fault[1:] for each in found.values())
        assert 50 < proxy.counts[fault] < 300
    assert store.paths == ["/logs/_bulk?require_data_stream=true"]


def test_a_dropped_answer_is_stored_and_a_lost_request_is_not(store: Store) -> None:
    seen: list[int] = []
    with BulkProxy(store.server_port) as proxy:
        proxy.after_drop = lambda: seen.append(len(store.ids))
        for fault, stored in (("lose_next", 0), ("drop_next", 3)):
            setattr(proxy, fault, 1)
            with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
                bulk(proxy, 3)
            assert len(store.ids) == stored
        assert bulk(proxy, 3)[0] == 200
    assert seen == [3]


def test_whole_refusals_bid_to_wait_and_store_nothing(store: Store) -> None:
    for name in ("whole_429", "whole_503"):
        faults = BulkFaults(**{name: 1.0}, retry_after_s=2)  # type: ignore[arg-type] # one of its chances
        with BulkProxy(store.server_port, faults=faults) as proxy:
            status, headers, body = bulk(proxy, 3)
        assert f"whole_{status}" == name
        assert headers["Retry-After"] == "2"
        assert "exception" in body["error"]["type"]
    assert store.ids == []


def test_the_same_seed_makes_the_same_faults(store: Store) -> None:
    found = []
    for _ in range(2):
        with BulkProxy(store.server_port, faults=BulkFaults(p429=0.3), seed=3) as proxy:
            found.append([item["create"]["status"] for item in bulk(proxy, 50)[2]["items"]])
    assert found[0] == found[1]
