"""The port that answers scrapes alone: who gets what, how many at once, and when it is there."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from time import monotonic, process_time, sleep
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskscope import Settings, instrument
from taskscope.errors import InstrumentError
from taskscope.metrics.instruments import Instruments
from taskscope.scraping import adminport
from taskscope.scraping.adminport import AdminPort
from taskscope.scraping.scrapes import Scrapes
from taskscope.testing.metrics import isolated
from taskscope.testing.scarcity import descriptors_left

TOKEN = "a-token-of-16-chars"


@pytest.fixture
def port() -> Iterator[AdminPort]:
    instruments = isolated()
    made = _port(instruments)
    made.start()
    yield made
    made.close()


def _port(
    instruments: Instruments, *, port: int = 0, shared: bool = False, text: bytes = b"planted 1\n"
) -> AdminPort:
    return AdminPort(
        Scrapes(lambda _openmetrics: text, instruments),
        port=port,
        path="/metrics",
        token=TOKEN,
        shared=shared,
        failed=instruments.failed,
    )


def _get(port: AdminPort, path: str = "/metrics", **headers: str) -> tuple[int, bytes]:
    request = Request(f"http://127.0.0.1:{port.port}{path}", headers=headers)
    try:
        with urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except HTTPError as error:
        return error.code, error.read()


def test_it_answers_one_path_to_who_has_the_token(port: AdminPort) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert _get(port, **bearer) == (200, b"planted 1\n")
    assert _get(port, "/metrics?name=x", **bearer)[0] == 200
    assert _get(port, "/other", **bearer)[0] == 404
    assert _get(port)[0] == 401
    assert _get(port, Authorization="Bearer tökén-of-16-chars")[0] == 401


def test_it_zips_where_it_may(port: AdminPort) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "gzip"}
    assert gzip.decompress(_get(port, **bearer)[1]) == b"planted 1\n"


def test_it_listens_on_the_loopback_alone(port: AdminPort) -> None:
    with socket.create_connection(("127.0.0.1", port.port or 0), timeout=5) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port.port or 0), timeout=5)


def test_one_more_caller_than_seats_is_hung_up_on_and_the_next_is_served(port: AdminPort) -> None:
    with ExitStack() as callers:
        for _ in range(8):
            silent = socket.create_connection(("127.0.0.1", port.port or 0), timeout=10)
            callers.enter_context(silent)
        with socket.create_connection(("127.0.0.1", port.port or 0), timeout=10) as ninth:
            assert ninth.recv(1) == b""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    statuses = {0}
    while 200 not in statuses:  # the seats are free as soon as their threads saw the hang-up
        try:
            statuses.add(_get(port, **bearer)[0])
        except OSError:
            continue


def test_a_caller_that_dribbles_keeps_no_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminport, "_CALLER_S", 0.3)
    made = _port(isolated())
    made.start()
    with socket.create_connection(("127.0.0.1", made.port or 0), timeout=10) as slow:
        began = monotonic()
        with suppress(ConnectionError):
            while monotonic() - began < 5:
                slow.sendall(b"G")  # a byte each time, well before a time-out of its own
                sleep(0.02)
        assert 0.2 < monotonic() - began < 4
    made.close()


def test_without_descriptors_it_takes_no_core_and_answers_when_there_are_some_again(
    port: AdminPort,
) -> None:
    with ExitStack() as callers:
        with descriptors_left(1):  # the caller's own
            waiting = socket.create_connection(("127.0.0.1", port.port or 0), timeout=10)
            callers.enter_context(waiting)
            waiting.sendall(b"GET /other HTTP/1.0\r\n\r\n")
            before = process_time()
            sleep(0.5)  # what it costs in that time is what is asked
            assert process_time() - before < 0.05
        assert waiting.recv(12) == b"HTTP/1.0 404"


def test_a_taken_port_is_one_sentence_and_a_shared_one_is_not_taken(port: AdminPort) -> None:
    number = port.port or 0
    with pytest.raises(InstrumentError, match=f"metrics_port {number} cannot be listened on"):
        _port(isolated(), port=number).start()
    first = _port(isolated(), shared=True)
    first.start()
    second = _port(isolated(), port=first.port or 0, shared=True)
    second.start()
    assert second.port == first.port
    first.close()
    assert _get(second, Authorization=f"Bearer {TOKEN}")[0] == 200
    second.close()


def test_a_service_with_such_a_port_has_no_metrics_on_its_own() -> None:
    app = FastAPI()
    settings = Settings(metrics_port=_free_port(), metrics_token=TOKEN)
    instrument(
        app,
        service_name="test",
        service_version="1",
        logs=False,
        tracing=False,
        settings=settings,
    )
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    with TestClient(app) as client:
        assert client.get("/metrics", headers=bearer).status_code == 404
        with urlopen(Request(url, headers=bearer), timeout=5) as response:
            assert b"taskscope_build_info" in response.read()
    with pytest.raises(OSError, match="refused"):
        urlopen(Request(url, headers=bearer), timeout=5)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
