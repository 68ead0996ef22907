"""The client against a real Prometheus, and against what is none."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from taskscope.testing.engines import free_port
from taskscope_ui.sources.prometheus import (
    MAX_BYTES,
    Prometheus,
    QueryRefusedError,
    SourceError,
    UnreachableError,
)

RATE = "service:http_requests:rate5m"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that is no Prometheus: it says the same to everybody."""

    class Same(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Same)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.engine
def test_an_instant_query_answers_each_series_with_its_labels(backfilled: Any) -> None:
    found = Prometheus(url=backfilled.url).instant("slo:error_budget_remaining:ratio")
    assert sorted(s.labels["slo"] for s in found) == ["availability", "latency"]


@pytest.mark.engine
def test_a_scalar_is_one_sample(backfilled: Any) -> None:
    (sample,) = Prometheus(url=backfilled.url).instant("6 * 7")
    assert sample.point.value == 42


@pytest.mark.engine
def test_a_value_of_the_past_is_asked_by_its_time(backfilled: Any) -> None:
    client = Prometheus(url=backfilled.url)
    (one,) = client.instant(RATE, at=backfilled.end - 7200)
    (same,) = client.instant(f"{RATE} @ {backfilled.end - 7200:.0f}")
    assert one.point.value == same.point.value


@pytest.mark.engine
def test_a_range_has_a_point_for_each_step(backfilled: Any) -> None:
    end = backfilled.end - 3600
    (line,) = Prometheus(url=backfilled.url).range(RATE, start=end - 600, end=end, step_s=60)
    assert [point.time - end for point in line.points] == list(range(-600, 1, 60))


@pytest.mark.engine
def test_not_a_number_and_infinity_arrive_as_such(backfilled: Any) -> None:
    client = Prometheus(url=backfilled.url)
    values = [client.instant(q)[0].point.value for q in ("0 / 0", "1 / 0")]
    assert (math.isnan(values[0]), values[1]) == (True, math.inf)


@pytest.mark.engine
def test_nothing_found_is_an_empty_answer(backfilled: Any) -> None:
    assert Prometheus(url=backfilled.url).instant("no_such_series") == ()


@pytest.mark.engine
def test_a_broken_query_is_refused_with_prometheus_reason(backfilled: Any) -> None:
    with pytest.raises(QueryRefusedError, match=r"refuses a query \(.*parse error"):
        Prometheus(url=backfilled.url).instant("sum(")


def test_more_points_than_prometheus_gives_are_never_asked() -> None:
    with pytest.raises(QueryRefusedError, match="take a longer step"):
        Prometheus(url="http://127.0.0.1:1").range("up", start=0, end=86_400, step_s=1)


def test_nobody_at_the_address_is_said_with_the_remedy() -> None:
    port = free_port()
    with pytest.raises(UnreachableError) as caught:
        Prometheus(url=f"http://127.0.0.1:{port}").instant("up")
    assert str(caught.value) == (
        f"Prometheus at http://127.0.0.1:{port} does not answer (connection refused); "
        "start it with `taskscope up`, or set PROMETHEUS_URL"
    )


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="no answer in time"):
            Prometheus(url=url, timeout_s=0.2).instant("up")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"not here"), (200, b"<html>"), (200, b"[1, 2]"), (200, b'{"status": 3}'), (502, b"")],
)
def test_a_server_that_is_no_prometheus_is_named_as_such(status: int, body: bytes) -> None:
    with answering(status, body) as url, pytest.raises(SourceError, match="not as Prometheus does"):
        Prometheus(url=url).instant("up")


def test_an_answer_without_end_is_cut_off() -> None:
    with answering(200, b" " * (MAX_BYTES + 1)) as url, pytest.raises(SourceError, match="16 MiB"):
        Prometheus(url=url).instant("up")


def test_a_password_in_the_address_is_never_repeated() -> None:
    with pytest.raises(UnreachableError) as caught:
        Prometheus(url=f"http://user:hunter2@127.0.0.1:{free_port()}").instant("up")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:9090", "ftp://127.0.0.1", "http://", ""])
def test_what_is_no_address_is_refused_at_birth(url: str) -> None:
    with pytest.raises(SourceError, match="write it as http"):
        Prometheus(url=url)
