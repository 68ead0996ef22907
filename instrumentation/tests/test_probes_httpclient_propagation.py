"""What calls take along: one trace over two services, and nothing to whom it is not meant for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from taskscope import Settings, get_logger, instrument
from taskscope.catalogue.groups import HTTP_CLIENT
from taskscope.context import RequestContext, current_request
from taskscope.errors import MetricError
from taskscope.probes.httpclient import HttpClientProbe
from taskscope.probes.propagation import LOOPBACK, Audience
from taskscope.testing.logs import Line, read_lines
from taskscope.testing.metrics import isolated
from taskscope.testing.server import serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = RequestContext(
    request_id="r" * 32, method="GET", path="/", trace_id=TRACE, span_id=SPAN, sampled=False
)


class Recorder:
    """Keeps what it was sent. `to`: where it redirects a call of /away."""

    def __init__(self, to: str = "") -> None:
        self.requests: list[httpx2.Request] = []
        self._to = to

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.path == "/away":
            return httpx2.Response(307, headers={"location": self._to})
        return httpx2.Response(200)

    def headers(self, *names: str) -> list[tuple[str | None, ...]]:
        return [tuple(request.headers.get(name) for name in names) for request in self.requests]


@contextmanager
def serving_request() -> Iterator[None]:
    token = current_request.set(REQUEST)
    try:
        yield
    finally:
        current_request.reset(token)


def watched(recorder: Recorder, *propagate_to: str) -> httpx2.Client:
    client = httpx2.Client(transport=httpx2.MockTransport(recorder), follow_redirects=True)
    HttpClientProbe(isolated(*HTTP_CLIENT)).watch(client, propagate_to=propagate_to or LOOPBACK)
    return client


def test_the_request_goes_along_to_this_machine_alone_by_default() -> None:
    recorder = Recorder()
    with watched(recorder) as client, serving_request():
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "10.0.0.1", "api.example"):
            client.get(f"http://{host}/")
    told = (f"00-{TRACE}-{SPAN}-00", "r" * 32)
    nothing = (None, None)
    assert recorder.headers("traceparent", "x-request-id") == [told] * 3 + [nothing] * 2


@pytest.mark.parametrize(("sampler", "flags"), [(ALWAYS_ON, "01"), (ALWAYS_OFF, "00")])
def test_the_running_span_goes_along_sampled_or_not(sampler: object, flags: str) -> None:
    recorder = Recorder()
    tracer = TracerProvider(sampler=sampler).get_tracer("test")  # type: ignore[arg-type] # one of two
    with (
        watched(recorder) as client,
        serving_request(),
        tracer.start_as_current_span("work") as span,
    ):
        client.get("http://localhost/")
        ids = span.get_span_context()
    expected = (
        f"00-{trace.format_trace_id(ids.trace_id)}-{trace.format_span_id(ids.span_id)}-{flags}"
    )
    assert recorder.headers("traceparent") == [(expected,)]


def test_outside_of_requests_and_spans_nothing_goes_along() -> None:
    recorder = Recorder()
    with watched(recorder) as client:
        client.get("http://localhost/")
    assert recorder.headers("traceparent", "x-request-id") == [(None, None)]


def test_baggage_never_goes_along() -> None:
    recorder = Recorder()
    token = context.attach(baggage.set_baggage("user", "ann"))
    try:
        with watched(recorder) as client, serving_request():
            client.get("http://localhost/")
    finally:
        context.detach(token)
    assert recorder.headers("baggage") == [(None,)]


def test_what_the_caller_set_stays() -> None:
    recorder = Recorder()
    with watched(recorder) as client, serving_request():
        client.get("http://localhost/", headers={"Traceparent": "mine", "X-Request-ID": "mine"})
    assert recorder.headers("traceparent", "x-request-id") == [("mine", "mine")]


def test_a_redirect_to_a_stranger_takes_nothing_along() -> None:
    recorder = Recorder(to="http://stranger.example/")
    with watched(recorder) as client, serving_request():
        response = client.get("http://localhost/away")
    assert str(response.url) == "http://stranger.example/"
    assert [ids is not None for (ids,) in recorder.headers("traceparent")] == [True, False]


def test_the_request_that_the_caller_sees_and_its_body_are_unchanged() -> None:
    recorder = Recorder()
    with watched(recorder) as client, serving_request():
        response = client.post("http://localhost/", content=b"body")
        streamed = client.post("http://localhost/", content=iter([b"bo", b"dy"]))
    assert "traceparent" not in response.request.headers
    assert [sent.read() for sent in recorder.requests] == [b"body", b"body"]
    assert streamed.status_code == 200


@pytest.mark.parametrize(
    ("entry", "host", "told"),
    [
        ("orders.internal", "orders.internal", True),
        ("Orders.Internal", "orders.internal.", True),
        ("orders.internal", "x.orders.internal", False),
        ("orders.internal", "evil-orders.internal", False),
        (".internal", "orders.internal", True),
        (".internal", "internal", False),
        (".internal", "internal.evil.example", False),
        (".internal", "xinternal", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3.evil.example", False),
        ("10.0.0.0/8", "167772161", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.1.2.3", False),
        ("orders", "orders", True),
        ("orders", "", False),
    ],
)
def test_the_audience_is_what_is_listed(entry: str, host: str, told: bool) -> None:
    audience = Audience((entry,))
    assert (audience.includes(host), audience.includes(host)) == (told, told)


@pytest.mark.parametrize(
    "entry", ["*", "", ".", "http://orders", "orders:80", "a b", "10.0.0.0/99"]
)
def test_what_is_neither_host_nor_network_is_refused_at_once(entry: str) -> None:
    with pytest.raises(MetricError, match="neither a host nor a network"):
        Audience((entry,))


def test_one_text_is_no_list() -> None:
    with pytest.raises(MetricError, match="write it as a tuple"):
        Audience("localhost")  # type: ignore[arg-type] # that is what the test is about


def test_the_hosts_that_are_remembered_are_bounded() -> None:
    audience = Audience((".internal",))
    assert all(audience.includes(f"{number}.internal") for number in range(10_000))
    assert len(audience._known) <= 256


def _pair(folder: Path, trace_ratio: float) -> tuple[FastAPI, FastAPI]:
    front, back = FastAPI(), FastAPI()
    for app, name in ((front, "front"), (back, "back")):
        settings = Settings(
            spool=folder / name, trusted_hops=("127.0.0.0/8",), trace_ratio=trace_ratio
        )
        instrument(app, service_name=name, service_version="1", settings=settings)

    @back.get("/stock")
    async def stock() -> int:
        get_logger("back").info("counted")
        return 7

    @front.get("/order")
    async def order(at: str) -> int:
        get_logger("front").info("ordered")
        async with httpx2.AsyncClient() as client:
            HttpClientProbe(isolated(*HTTP_CLIENT)).watch(client)
            answer: int = (await client.get(f"{at}/stock")).json()
        return answer

    return front, back


def _lines(folder: Path, message: str) -> list[Line]:
    return [line for line in read_lines(folder) if line["message"] == message]


@pytest.mark.parametrize(("parser", "trace_ratio"), [("h11", 1.0), ("httptools", 0.0)])
def test_two_services_write_one_trace_id_sampled_or_not(
    tmp_path: Path, parser: str, trace_ratio: float
) -> None:
    front, back = _pair(tmp_path, trace_ratio)

    async def ask(url: str, at: str) -> int:
        async with httpx2.AsyncClient() as client:
            return int((await client.get(f"{url}/order", params={"at": at})).json())

    with serving(back, http=parser) as at, serving(front, http=parser) as url:  # type: ignore[arg-type] # one of two
        assert asyncio.run(ask(url, at)) == 7
    (asked,) = _lines(tmp_path / "front", "ordered")
    (answered,) = _lines(tmp_path / "back", "counted")
    assert asked["trace.id"] == answered["trace.id"]
    assert answered["labels"]["client_request_id"] == asked["http.request.id"]
