"""Connections over real sockets, with both parsers: half a request, a dripped one, one with too long a head."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

import taskscope
from taskscope.testing import waiting
from taskscope_taskapi.app import create_app
from taskscope_taskapi.serving import Parser, head_bytes, protocol_class
from taskscope_taskapi.settings import Settings

until = partial(waiting.until, within_s=10)

HEADER_S, BODY_S = 0.4, 0.4


@pytest.fixture(scope="module", params=["h11", "httptools"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    parser: Parser = request.param
    folder = tmp_path_factory.mktemp(parser)
    settings = Settings(state_dir=folder, rate_limit=10_000, body_s=BODY_S)
    app = create_app(settings, telemetry=taskscope.Settings(spool=folder / "spool"))
    protocol = protocol_class(parser, header_s=HEADER_S, header_bytes=8192, connections=5)
    config = uvicorn.Config(
        app, http=protocol, ws="none", log_config=None, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    came = b""
    try:
        while part := connection.recv(65536):
            came += part
    except ConnectionResetError:
        pass
    return came


def code(answer: bytes) -> str:
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(body) == {"success", "data", "error", "meta"}
    return str(body["error"]["code"])


def test_half_a_head_is_hung_up(port: int) -> None:
    with connected(port) as connection:
        started = time.monotonic()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        answer = all_of(connection)
        took = time.monotonic() - started
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert code(answer) == "request_timeout"
    assert HEADER_S * 0.9 < took < HEADER_S + 2


def test_a_head_that_drips_is_hung_up_no_later(port: int) -> None:
    with connected(port) as connection:
        started = time.monotonic()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: ")
        while time.monotonic() - started < 4:
            try:
                connection.sendall(b"a")
            except OSError:
                break
            time.sleep(0.02)
        took = time.monotonic() - started
    assert took < HEADER_S + 2


def test_a_connection_that_says_nothing_is_hung_up(port: int) -> None:
    with connected(port) as connection:
        assert all_of(connection) == b""


def test_the_second_request_of_a_connection_has_a_deadline_too(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b'"ok"' in connection.recv(65536)
        connection.sendall(b"GET /livez HT")
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_is_kept_alive_is_served_again_and_again(port: int) -> None:
    with connected(port) as connection:
        for _ in range(8):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(HEADER_S / 4)


def test_a_head_in_two_pieces_in_time_is_served(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r")
        time.sleep(0.05)
        connection.sendall(b"\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_two_requests_in_one_piece_are_both_served(port: int) -> None:
    with connected(port) as connection:
        one = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.sendall(one + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert all_of(connection).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "endless"])
def test_a_head_that_is_too_long_is_refused(port: int, whole: bool) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000
    with connected(port) as connection:
        connection.sendall(head + (b"\r\n\r\n" if whole else b""))
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert code(answer) == "headers_too_large"


POST = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def test_half_a_body_is_answered_and_hung_up(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(POST + b'Content-Length: 100\r\n\r\n{"username":')
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert code(answer) == "request_timeout"


def test_a_body_that_drips_is_hung_up_no_later(port: int) -> None:
    with connected(port) as connection:
        started = time.monotonic()
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        while time.monotonic() - started < 4:
            try:
                connection.sendall(b"1\r\nx\r\n")
            except OSError:
                break
            time.sleep(0.02)
    assert time.monotonic() - started < BODY_S + 2


def test_a_body_that_says_it_is_too_long_is_refused_unread(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(POST + b"Content-Length: 99999999\r\n\r\n")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert code(answer) == "payload_too_large"


def test_a_body_that_does_not_say_how_long_it_is_is_refused_where_it_is_too_long(
    port: int,
) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with connected(port) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + 17 * piece)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["TLS", "two lengths", "length and chunks"],
)
def test_what_is_no_request_is_refused(port: int, nonsense: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(nonsense)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert code(answer) == "bad_request"


def test_a_crowd_is_told_to_come_again(port: int) -> None:
    crowd = [connected(port) for _ in range(6)]
    try:
        with connected(port) as connection:
            connection.sendall(b"GET /api/v1/tasks HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = all_of(connection)
    finally:
        for idle in crowd:
            idle.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert code(answer) == "overloaded"
    assert b"retry-after: 1" in answer.lower()


def test_forty_that_drip_hold_nobody_up(port: int) -> None:
    dripping = [connected(port) for _ in range(40)]
    for connection in dripping:
        connection.sendall(b"GET / HTTP/1.1\r\n")
    closed = [all_of(connection) for connection in dripping]
    for connection in dripping:
        connection.close()
    with connected(port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert len(closed) == 40


@pytest.mark.parametrize(
    ("tail", "data", "found"),
    [
        (b"", b"GET / HTTP/1.1\r\n", (16, False)),
        (b"", b"a\r\n\r\nbody", (5, True)),
        (b"a\r\n", b"\r\nbody", (2, True)),
        (b"\r\n\r", b"\nbody", (1, True)),
        (b"", b"a\n\nbody", (3, True)),
    ],
)
def test_the_end_of_a_head_is_found_across_pieces(
    tail: bytes, data: bytes, found: tuple[int, bool]
) -> None:
    assert head_bytes(tail, data) == found


@given(cuts=st.lists(st.integers(1, 60), max_size=6), size=st.integers(0, 30))
def test_the_end_of_a_head_is_found_however_it_is_cut(cuts: list[int], size: int) -> None:
    head = b"GET / HTTP/1.1\r\nX: " + b"x" * size + b"\r\n\r\n"
    stream = head + b"body\r\n\r\nbody"
    tail, length, whole = b"", 0, False
    borders = sorted({0, *cuts, len(stream)})
    for start, end in pairwise(borders):
        piece = stream[start:end]
        if not whole:
            part, whole = head_bytes(tail, piece)
            tail = (tail + piece)[-3:]
            length += part
    assert (length, whole) == (len(head), True)
