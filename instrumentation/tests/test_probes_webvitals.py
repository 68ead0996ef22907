"""The beacon over real sockets: what browsers report is counted, what anybody else invents is not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from taskscope.catalogue import Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.groups import (
    BEACON_REFUSED,
    BROWSER_ERRORS,
    LAYOUT_SHIFT,
    WEB_VITAL_DURATION,
    WEB_VITALS,
)
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes import webvitals
from taskscope.probes.pages import Pages
from taskscope.probes.webvitals import MAX_BODY, WebVitalsBeacon
from taskscope.probes.webvitals_script import SCRIPT
from taskscope.testing.metrics import isolated, value
from taskscope.testing.server import serving

PAGES = Pages(["/", "/tasks/{task_id:int}"])


@pytest.fixture
def instruments() -> Instruments:
    return isolated(*WEB_VITALS)


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


def beacon(instruments: Instruments, **options: Any) -> WebVitalsBeacon:
    unlimited = {"per_second": 1e9, "per_client": 1e9}
    return WebVitalsBeacon(instruments, PAGES, **{**unlimited, **options})


class Served:
    """A server that a whole module shares; each test puts an app of its own behind it."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""
        self.http = httpx2.Client()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.app(scope, receive, send)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    server = Served()
    with serving(server, http=request.param) as address:
        server.url = f"{address}/vitals"
        yield server
    server.http.close()


@pytest.fixture
def url(served: Served, instruments: Instruments) -> str:
    served.app = beacon(instruments)
    return served.url


@pytest.fixture
def http(served: Served) -> httpx2.Client:
    return served.http


def counted(instruments: Instruments, metric: Metric, part: str = "", **labels: str) -> float:
    return value(instruments.registry, metric, part=part, **labels)


def series(instruments: Instruments) -> int:
    return sum(
        sample.name.startswith("browser_")
        for family in instruments.registry.collect()
        for sample in family.samples
    )


def test_a_report_is_counted_by_the_route_of_its_page(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    report = {"route": "/tasks/7?x=1", "LCP": 812.5, "TTFB": 90, "INP": 40, "FCP": 300, "CLS": 0.02}
    for kind in ("text/plain;charset=UTF-8", "application/json"):
        answer = http.post(url, content=json.dumps(report), headers={"content-type": kind})
        assert (answer.status_code, answer.content) == (204, b"")
        assert not [name for name in answer.headers if name.startswith("access-control")]

    route = {"http_route": "/tasks/{task_id}"}
    for vital in ("lcp", "inp", "fcp", "ttfb"):
        assert counted(instruments, WEB_VITAL_DURATION, vital=vital, **route) == 2
    assert counted(instruments, WEB_VITAL_DURATION, "sum", vital="lcp") == 2 * 0.8125
    assert counted(instruments, LAYOUT_SHIFT, "sum", **route) == 0.04
    assert counted(instruments, BEACON_REFUSED) == 0


def test_a_single_vital_as_libraries_send_it_is_counted(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    report = {"name": "LCP", "value": 2_000, "id": "v5-1", "delta": 3, "entries": [{}]}

    assert http.post(url, json=report).status_code == 204
    assert counted(instruments, WEB_VITAL_DURATION, vital="lcp", http_route="unmatched") == 1


def test_errors_are_counted_and_a_template_names_its_page_itself(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    http.post(url, json={"route": "/tasks/{task_id}", "errors": 3})
    http.post(url, json={"route": "/", "errors": 1e9})

    assert counted(instruments, BROWSER_ERRORS, http_route="/tasks/{task_id}") == 3
    assert counted(instruments, BROWSER_ERRORS, http_route="/") == 100


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'{"route": "/", "LCP": ', 400, "syntax"),
        (b"", 400, "syntax"),
        (b"[1]", 400, "syntax"),
        (b"\xff\xfe", 400, "syntax"),
        (b'{"LCP": NaN}', 400, "syntax"),
        (b'{"LCP": 1e999}', 400, "syntax"),
        (b"[" * MAX_BODY, 400, "syntax"),
        (b'{"LCP": -1}', 400, "value"),
        (b'{"LCP": "1"}', 400, "value"),
        (b'{"LCP": true}', 400, "value"),
        (b'{"LCP": null}', 400, "value"),
        (b'{"LCP": 1, "CLS": [0]}', 400, "value"),
        (b'{"LCP": 1' + b"0" * 400 + b"}", 400, "value"),
        (b'{"route": 7, "LCP": 1}', 400, "value"),
        (b'{"LCP": 1, "LCP2": 1}', 400, "name"),
        (b'{"name": "constructor", "value": 1}', 400, "name"),
        (b'{"name": ["LCP"], "value": 1}', 400, "name"),
        (b'{"LCP": 1}' + b" " * MAX_BODY, 413, "size"),
    ],
)
def test_what_is_no_report_is_refused_whole_and_counted_by_reason(
    body: bytes, status: int, reason: str, url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    answer = http.post(url, content=body)

    assert (answer.status_code, answer.content) == (status, b"")
    assert counted(instruments, BEACON_REFUSED, reason=reason) == 1
    assert counted(instruments, BEACON_REFUSED) == 1
    assert counted(instruments, WEB_VITAL_DURATION) == 0
    assert counted(instruments, LIBRARY_ERRORS) == 0


def test_values_beyond_what_a_page_can_take_are_clamped(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    http.post(url, json={"route": "/", "LCP": 1e300, "CLS": 1e300})

    assert counted(instruments, WEB_VITAL_DURATION, "sum") == 60
    assert counted(instruments, LAYOUT_SHIFT, "sum") == 10


def test_ten_thousand_invented_names_and_routes_make_no_series(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    http.post(url, json={"route": "/nowhere", "LCP": 1, "CLS": 1, "errors": 1})
    before = series(instruments)
    for number in range(200):
        # As many names as fit into one report; each report is refused by the first of them.
        invented = {f"v{number}-{index}": 1 for index in range(50)}
        assert http.post(url, json=invented).status_code == 400
    for number in range(200):
        http.post(url, json={"route": f"/{number}/../{'x' * number}", "LCP": 1, "errors": 1})
    wrapped = beacon(instruments)
    for number in range(10_000):
        wrapped._route(f"/tasks/x{number}")

    assert series(instruments) == before
    assert counted(instruments, BEACON_REFUSED, reason="name") == 200
    assert counted(instruments, WEB_VITAL_DURATION, http_route="unmatched") == 201


def test_a_body_without_an_end_is_read_no_further_than_the_limit(
    url: str, instruments: Instruments
) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(
            b"POST /vitals HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"400\r\n" + b" " * 1024 + b"\r\n"
        )
        for _ in range(4):
            client.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        answer = client.recv(1_000)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert counted(instruments, BEACON_REFUSED, reason="size") == 1


def test_a_length_that_is_too_great_is_refused_before_a_byte_is_read(
    url: str, instruments: Instruments
) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b"POST /vitals HTTP/1.1\r\nhost: a\r\ncontent-length: 5000000000\r\n\r\n")
        answer = b""
        while received := client.recv(1_000):  # to the end: the connection is not kept
            answer += received

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert counted(instruments, BEACON_REFUSED, reason="size") == 1


def test_a_body_that_comes_too_slowly_is_given_up(
    url: str, instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webvitals, "READ_S", 0.05)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b'POST /vitals HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"LCP"')
        answer = client.recv(1_000)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert counted(instruments, BEACON_REFUSED, reason="syntax") == 1


def test_the_script_is_served_with_a_time_to_keep_it(url: str, http: httpx2.Client) -> None:
    script = http.get(f"{url}.js")
    head = http.head(f"{url}.js")

    assert script.content == SCRIPT
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=3600"
    assert (head.content, head.headers["content-length"]) == (b"", str(len(SCRIPT)))


def test_other_methods_are_told_which_one_is_meant(
    url: str, http: httpx2.Client, instruments: Instruments
) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = http.request(method, url)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert http.delete(f"{url}.js").headers["allow"] == "GET, HEAD"
    assert counted(instruments, BEACON_REFUSED) == 0


def test_origins_that_are_not_on_the_list_are_refused(
    instruments: Instruments, served: Served
) -> None:
    served.app = beacon(instruments, origins=["https://shop.example"])
    http, url = served.http, served.url
    ours = http.post(url, json={}, headers={"origin": "https://shop.example"})
    theirs = http.post(url, json={}, headers={"origin": "https://shop.example.evil"})
    none = http.post(url, json={})

    assert [answer.status_code for answer in (ours, theirs, none)] == [204, 403, 403]
    assert counted(instruments, BEACON_REFUSED, reason="origin") == 2


def test_a_client_that_reports_too_often_is_refused_until_time_has_passed(
    instruments: Instruments, served: Served
) -> None:
    clock = Clock()
    served.app = beacon(instruments, per_client=0.1, clock=clock)
    statuses = [served.http.post(served.url, json={}).status_code for _ in range(4)]
    clock.at += 10
    later = served.http.post(served.url, json={}).status_code

    assert statuses == [204, 204, 429, 429]
    assert later == 204
    assert counted(instruments, BEACON_REFUSED, reason="rate") == 2


def test_a_fault_of_ours_is_the_clients_204(
    instruments: Instruments, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: Any) -> Any:
        raise RuntimeError("planted")

    served.app = WebVitalsBeacon(instruments, planted)
    looked_up = served.http.post(served.url, json={"route": "/", "errors": 1}).status_code
    monkeypatch.setattr(served.app, "_check", planted)
    checked = served.http.post(served.url, json={"errors": 1}).status_code

    assert (looked_up, checked) == (204, 204)
    assert counted(instruments, BROWSER_ERRORS, http_route="unmatched") == 1
    assert counted(instruments, LIBRARY_ERRORS, component="probes") == 2


def test_a_catalogue_without_the_group_is_told_at_the_start() -> None:
    with pytest.raises(MetricError, match=r"add \*WEB_VITALS of taskscope"):
        WebVitalsBeacon(isolated(*WEB_VITALS[1:]), PAGES)


def spoken(app: WebVitalsBeacon, *received: dict[str, Any], **scope: Any) -> list[dict[str, Any]]:
    """What `app` sends to a client that speaks no HTTP/1."""
    sent: list[dict[str, Any]] = []
    messages = iter(received)

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        plain = {"type": "http", "method": "POST", "path": "/vitals", "headers": []}
        await app({**plain, **scope}, receive, send)

    asyncio.run(run())
    return sent


def test_a_websocket_is_closed_and_a_lifespan_is_not_ours(instruments: Instruments) -> None:
    app = beacon(instruments)

    assert spoken(app, type="websocket") == [{"type": "websocket.close", "code": 1000}]
    assert spoken(app, type="lifespan") == []


def test_over_http_2_a_refusal_has_no_header_of_connections(instruments: Instruments) -> None:
    body = {"type": "http.request", "body": b"x"}

    start, _ = spoken(beacon(instruments), body, http_version="2")

    assert (start["status"], start["headers"]) == (400, [(b"content-length", b"0")])


def test_a_client_that_leaves_in_the_midst_gets_no_answer_and_is_not_counted(
    instruments: Instruments,
) -> None:
    begun = {"type": "http.request", "body": b'{"LCP"', "more_body": True}

    assert spoken(beacon(instruments), begun, {"type": "http.disconnect"}) == []
    assert counted(instruments, BEACON_REFUSED) == 0
