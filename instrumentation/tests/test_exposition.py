"""The exposition: what a scraper gets, and what a broken collector or a busy scraper cannot do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from prometheus_client.registry import Collector

from taskscope import Settings, instrument
from taskscope.catalogue.builtin import (
    LIBRARY_ERRORS,
    REQUEST_DURATION,
    SCRAPE_DURATION,
    SCRAPE_SIZE,
)
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.store import Exemplar
from taskscope.scraping.exposition import Exposition
from taskscope.scraping.scrapes import Scrapes
from taskscope.testing.metrics import isolated, value


class Counted(Collector):
    """Counts its renderings and notes which thread they ran in."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.fail = False

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        self.threads.append(threading.get_ident())
        if self.fail:
            raise RuntimeError("planted")
        return [GaugeMetricFamily("planted", "Planted.", 1)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


@pytest.fixture
def counted(instruments: Instruments) -> Counted:
    collector = Counted()
    instruments.registry.register(collector)
    return collector


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint(instruments: Instruments, clock: Clock) -> Exposition:
    def render(openmetrics: bool) -> bytes:
        encode = openmetrics_text if openmetrics else generate_latest
        return encode(instruments.registry)

    return Exposition(Scrapes(render, instruments, now=clock))


def _client(endpoint: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=endpoint)
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


def _scrape(endpoint: Any, method: str = "GET", **headers: str) -> httpx2.Response:
    async def scrape() -> httpx2.Response:
        async with _client(endpoint) as client:
            return await client.request(method, "/metrics", headers=headers)

    return asyncio.run(scrape())


def test_a_scrape_without_wishes_gets_the_classic_text(endpoint: Exposition) -> None:
    response = _scrape(endpoint)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "process_cpu_seconds" in {family.name for family in classic(response.text)}


@pytest.mark.parametrize(
    "accept",
    [
        # what Prometheus 2.42 and 3.x send
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1"
        ),
    ],
)
def test_prometheus_gets_openmetrics_that_parses(endpoint: Exposition, accept: str) -> None:
    response = _scrape(endpoint, accept=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0")
    assert "process_cpu_seconds" in {family.name for family in openmetrics(response.text)}


def test_an_exemplar_is_in_openmetrics(instruments: Instruments, endpoint: Exposition) -> None:
    observed = instruments.histogram(REQUEST_DURATION).at(("GET", "/", "200", "ok"))
    observed.observe(0.1, Exemplar("a" * 32, "b" * 16, 0.1, 1.0))
    text = _scrape(endpoint, accept="application/openmetrics-text").text
    assert f'# {{span_id="{"b" * 16}",trace_id="{"a" * 32}"}} 0.1 1.0' in text


def test_head_gets_the_length_and_no_body(endpoint: Exposition) -> None:
    response = _scrape(endpoint, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 100


def test_another_method_is_refused_with_the_right_ones(endpoint: Exposition) -> None:
    response = _scrape(endpoint, "POST")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


def test_the_text_is_made_off_the_event_loop(endpoint: Exposition, counted: Counted) -> None:
    _scrape(endpoint)
    assert counted.threads != []
    assert threading.get_ident() not in counted.threads


@pytest.mark.parametrize("broken", ["_duration", "_size"])
def test_what_measures_the_scrape_never_fails_it(
    instruments: Instruments, clock: Clock, broken: str
) -> None:
    scrapes = Scrapes(lambda _: b"text", instruments, now=clock)
    setattr(scrapes, broken, None)
    assert _scrape(Exposition(scrapes)).content == b"text"
    assert value(instruments.registry, LIBRARY_ERRORS, component="exposition") == 1


def test_a_scrape_is_answered_while_all_threads_of_the_loop_wait(endpoint: Exposition) -> None:
    async def scrape() -> int:
        loop, silent = asyncio.get_running_loop(), threading.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        waiting = loop.run_in_executor(None, silent.wait)  # as a look-up does at a dead name server
        try:
            async with asyncio.timeout(5), _client(endpoint) as client:
                return (await client.get("/metrics")).status_code
        finally:
            silent.set()
            await waiting

    assert asyncio.run(scrape()) == 200


def test_scrapes_over_two_event_loops_at_once_are_all_answered(
    endpoint: Exposition, instruments: Instruments
) -> None:
    instruments.registry.register(_Slow())
    with ThreadPoolExecutor(4) as callers:
        answers = callers.map(lambda _: _scrape(endpoint).status_code, range(8))
        assert set(answers) == {200}


class _Slow(Counted):
    def collect(self) -> Iterable[Metric]:
        sleep(0.05)  # long enough for others to come meanwhile
        return super().collect()


@pytest.mark.parametrize("wanted", [True, False], ids=["gzip", "plain"])
def test_the_text_is_zipped_where_it_may_be(endpoint: Exposition, wanted: bool) -> None:
    response = _scrape(endpoint, **{"accept-encoding": "gzip" if wanted else "identity, gzip;q=0"})
    assert response.headers.get("content-encoding") == ("gzip" if wanted else None)
    assert "process_cpu_seconds" in response.text
    assert "etag" not in response.headers
    assert response.headers["vary"] == "accept, accept-encoding"


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.1, text/plain", False),
        ("text/plain;q=0.5, APPLICATION/OPENMETRICS-TEXT;q=0.5", True),
        ("application/openmetrics-text;q=nonsense", False),
        ("*/*", False),
        ("", False),
        ("application/openmetrics-textual", False),
    ],
)
def test_the_accept_headers_ranks_decide(
    endpoint: Exposition, accept: str, is_openmetrics: bool
) -> None:
    kind = _scrape(endpoint, accept=accept).headers["content-type"]
    assert kind.startswith("application/openmetrics-text" if is_openmetrics else "text/plain")


@pytest.mark.parametrize(
    ("presented", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer wrong-token-of-16", 401),
        ("Basic a-token-of-16-chars", 401),
        ("a-token-of-16-chars", 401),
        ("Bearer a-token-of-16-charsX", 401),
        ("Bearer a-token-of-16-chars", 200),
        ("bearer  a-token-of-16-chars ", 200),
    ],
)
def test_a_token_is_asked_for_where_one_is_set(presented: str | None, status: int) -> None:
    app = _instrumented(settings=Settings(metrics_token="a-token-of-16-chars"))
    response = _scrape(app, **({} if presented is None else {"authorization": presented}))
    assert response.status_code == status
    assert ("taskscope_build_info" in response.text) == (status == 200)
    assert response.headers.get("www-authenticate") == (None if status == 200 else "Bearer")


def test_scrapes_at_the_same_time_share_one_rendering(
    endpoint: Exposition, counted: Counted
) -> None:
    async def many() -> list[int]:
        async with _client(endpoint) as client:
            answers = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(many()) == [200] * 20
    assert len(counted.threads) == 1


def test_a_scrape_within_a_second_shares_and_a_later_one_does_not(
    endpoint: Exposition, counted: Counted, clock: Clock
) -> None:
    made = []
    for moment in (0.0, 0.9, 1.0):
        clock.now = moment
        _scrape(endpoint)
        made.append(len(counted.threads))
    assert made == [1, 1, 2]


def test_invented_accept_headers_share_one_rendering(
    endpoint: Exposition, counted: Counted
) -> None:
    for number in range(20):
        _scrape(
            endpoint, accept=f"application/openmetrics-text;version={number}.x;escaping={number}"
        )
    assert len(counted.threads) == 1


def test_a_broken_collector_gives_500_is_counted_and_heals(
    endpoint: Exposition, instruments: Instruments, counted: Counted
) -> None:
    counted.fail = True
    assert _scrape(endpoint).status_code == 500
    counted.fail = False
    assert value(instruments.registry, LIBRARY_ERRORS, component="exposition") == 1
    assert _scrape(endpoint).status_code == 200


def test_the_last_good_answer_bridges_a_failure_of_ten_seconds(
    endpoint: Exposition, instruments: Instruments, counted: Counted, clock: Clock
) -> None:
    _scrape(endpoint)
    counted.fail = True
    statuses = []
    for moment in (0.5, 2.0, 9.9, 10.0):
        clock.now = moment
        statuses.append(_scrape(endpoint).status_code)
    assert statuses == [200, 200, 200, 500]
    counted.fail = False
    assert value(instruments.registry, LIBRARY_ERRORS, component="exposition") == 3


def test_each_rendering_leaves_its_time_and_size(
    endpoint: Exposition, instruments: Instruments, clock: Clock
) -> None:
    length = len(_scrape(endpoint).content)
    assert value(instruments.registry, SCRAPE_SIZE) == length
    assert value(instruments.registry, SCRAPE_DURATION) == 1


def test_a_scraper_that_hangs_up_does_not_cancel_the_others(
    endpoint: Exposition, counted: Counted
) -> None:
    async def two() -> int:
        async with _client(endpoint) as client:
            first = asyncio.create_task(client.get("/metrics"))
            second = asyncio.create_task(client.get("/metrics"))
            await asyncio.sleep(0)
            first.cancel()
            return (await second).status_code

    assert asyncio.run(two()) == 200


def _instrumented(**options: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/{anything:path}")
    async def catch_all(anything: str) -> str:
        return "the app"

    options = {"settings": Settings(), "logs": False, "tracing": False, **options}
    instrument(app, service_name="test", service_version="1", **options)
    return app


def test_a_catch_all_route_does_not_hide_it_and_it_is_not_measured() -> None:
    app = _instrumented()
    _scrape(app)
    assert "taskscope_build_info" in _scrape(app).text
    assert value(app.state.telemetry.registry, REQUEST_DURATION) == 0


def test_it_is_not_in_the_openapi_schema() -> None:
    assert "/metrics" not in _instrumented().openapi()["paths"]


def test_its_path_is_a_setting() -> None:
    app = _instrumented(settings=Settings(metrics_path="/internal/metrics"))

    async def get(path: str) -> str:
        async with _client(app) as client:
            return (await client.get(path)).text

    assert "taskscope_build_info" in asyncio.run(get("/internal/metrics"))


def test_it_answers_behind_a_path_prefix() -> None:
    app = _instrumented(settings=Settings())
    with TestClient(app, root_path="/prefix") as client:
        assert "taskscope_build_info" in client.get("/prefix/metrics").text


def test_without_metrics_the_path_belongs_to_the_app() -> None:
    assert _scrape(_instrumented(metrics=False)).text == '"the app"'
