"""Calls to other services over real sockets: what came of each, and that the caller sees all as without the probe."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.groups import HTTP_CLIENT, HTTP_CLIENT_DURATION
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.httpclient import HttpClientProbe
from taskscope.testing.metrics import isolated, value
from taskscope.testing.server import serving


async def answer(request: Request) -> Response:
    return PlainTextResponse("hello", status_code=int(request.path_params["status"]))


async def hang(request: Request) -> Response:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


async def slow_stream(request: Request) -> Response:
    async def parts() -> Any:
        yield b"first"
        await asyncio.sleep(0.3)
        yield b"last"

    return StreamingResponse(parts())


async def redirect(request: Request) -> Response:
    return Response(status_code=307, headers={"location": "/status/200"})


ANY = ["GET", "POST", "BREW"]
SERVICE = Starlette(
    routes=[
        Route("/status/{status:int}", answer, methods=ANY),
        Route("/hang", hang),
        Route("/slow-stream", slow_stream),
        Route("/redirect", redirect),
    ]
)


@pytest.fixture(params=["h11", "httptools"])
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    parser: Literal["h11", "httptools"] = request.param
    with serving(SERVICE, http=parser) as url:
        yield url


@pytest.fixture
def instruments() -> Instruments:
    return isolated(*HTTP_CLIENT)


@pytest.fixture
def probe(instruments: Instruments) -> HttpClientProbe:
    return HttpClientProbe(instruments)


def seen(instruments: Instruments) -> dict[tuple[str, str, str, str], float]:
    """Calls by method, server, status and outcome."""
    names = HTTP_CLIENT_DURATION.label_names
    return {
        tuple(sample.labels[name] for name in names): sample.value
        for family in instruments.registry.collect()
        for sample in family.samples
        if sample.name == f"{HTTP_CLIENT_DURATION.family}_count" and sample.value
    }


def test_a_sync_client_is_counted_by_method_host_status_and_outcome(
    base: str, probe: HttpClientProbe, instruments: Instruments
) -> None:
    with httpx2.Client(base_url=base.replace("http://", "http://user:secret@")) as client:
        for _ in range(2):
            probe.watch(client)
        answers = [
            client.get("/status/200"),
            client.post("/status/201", json={}),
            client.get("/status/404"),
            client.get("/status/503"),
        ]
    host = "127.0.0.1"
    assert [one.status_code for one in answers] == [200, 201, 404, 503]
    assert seen(instruments) == {
        ("GET", host, "200", "ok"): 1,
        ("POST", host, "201", "ok"): 1,
        ("GET", host, "404", "client_error"): 1,
        ("GET", host, "503", "server_error"): 1,
    }


def test_an_async_client_is_counted_redirects_each(
    base: str, probe: HttpClientProbe, instruments: Instruments
) -> None:
    async def use() -> str:
        async with httpx2.AsyncClient(base_url=base, follow_redirects=True) as client:
            probe.watch(client)
            return (await client.get("/redirect")).text

    assert asyncio.run(use()) == "hello"
    assert seen(instruments) == {
        ("GET", "127.0.0.1", "307", "ok"): 1,
        ("GET", "127.0.0.1", "200", "ok"): 1,
    }


def test_a_stream_is_timed_until_its_headers_came(
    base: str, probe: HttpClientProbe, instruments: Instruments
) -> None:
    with httpx2.Client(base_url=base) as client:
        probe.watch(client)
        with client.stream("GET", "/slow-stream") as response:
            body = b"".join(response.iter_bytes())
    took_s = value(instruments.registry, HTTP_CLIENT_DURATION, part="sum")
    assert body == b"firstlast"
    assert 0 < took_s < 0.25


def test_a_method_that_is_not_known_is_other(
    probe: HttpClientProbe, instruments: Instruments
) -> None:
    with serving(SERVICE, http="h11") as base, httpx2.Client(base_url=base) as client:
        probe.watch(client)
        client.request("BREW", "/status/200")
    assert list(seen(instruments)) == [("_OTHER", "127.0.0.1", "200", "ok")]


def test_no_answer_in_time_is_a_timeout_and_raises_as_ever(
    base: str, probe: HttpClientProbe, instruments: Instruments
) -> None:
    with httpx2.Client(base_url=base, timeout=0.1) as client:
        probe.watch(client)
        with pytest.raises(httpx2.ReadTimeout) as caught:
            client.get("/hang")
    assert caught.value.request.url.path == "/hang"
    assert seen(instruments) == {("GET", "127.0.0.1", "", "timeout"): 1}


def test_a_refused_connection_is_unreachable_and_raises_as_ever(
    probe: HttpClientProbe, instruments: Instruments
) -> None:
    async def use() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with httpx2.AsyncClient() as client:
            probe.watch(client)
            with pytest.raises(httpx2.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/")

    asyncio.run(use())
    assert seen(instruments) == {("GET", "127.0.0.1", "", "unreachable"): 1}


def test_a_cancelled_call_is_cancelled(
    base: str, probe: HttpClientProbe, instruments: Instruments
) -> None:
    async def use() -> None:
        async with httpx2.AsyncClient(base_url=base) as client:
            probe.watch(client)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get("/hang"), 0.1)

    asyncio.run(use())
    assert seen(instruments) == {("GET", "127.0.0.1", "", "cancelled"): 1}


def test_a_mounted_transport_is_watched_too(
    probe: HttpClientProbe, instruments: Instruments
) -> None:
    mounted = httpx2.MockTransport(lambda _: httpx2.Response(418))
    with httpx2.Client(mounts={"http://tea.example": mounted, "http://no.example": None}) as client:
        probe.watch(client)
        assert client.get("http://TEA.example/pot").status_code == 418
    assert seen(instruments) == {("GET", "tea.example", "418", "client_error"): 1}


def test_hosts_beyond_the_cap_are_folded(probe: HttpClientProbe, instruments: Instruments) -> None:
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200))
    with httpx2.Client(transport=answers) as client:
        probe.watch(client)
        for number in range(100):
            client.get(f"http://host-{number}.EXAMPLE./")
        client.get(f"http://{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.example/")
    counted = seen(instruments)
    assert sum(counted.values()) == 101
    assert len(counted) == 33
    assert counted["GET", "__overflow__", "200", "ok"] == 69


def test_a_measurement_that_fails_is_counted_and_the_call_goes_on(
    base: str, probe: HttpClientProbe, instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(probe._durations, "at", planted)
    monkeypatch.setattr("taskscope.probes.httpclient.headers_to_take_along", planted)
    with httpx2.Client(base_url=base, timeout=0.1) as client:
        probe.watch(client)
        assert client.get("/status/200").text == "hello"
        with pytest.raises(httpx2.ReadTimeout):
            client.get("/hang")
    errors = value(
        instruments.registry, LIBRARY_ERRORS, component="probes", error_type="RuntimeError"
    )
    assert errors == 4


def test_a_catalogue_without_the_group_says_what_to_add() -> None:
    with pytest.raises(MetricError, match=r"add \*HTTP_CLIENT .* to Catalogue\(metrics=…\)"):
        HttpClientProbe(isolated())


def test_what_is_no_client_is_refused_at_once(probe: HttpClientProbe) -> None:
    with pytest.raises(MetricError, match="pass Client or AsyncClient"):
        probe.watch(object())  # type: ignore[arg-type] # that is what the test is about
