"""One request is one id, one user, one route and one trace, in its metric, its span and all of its lines."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Thread
from time import monotonic, sleep
from typing import Any, Literal

import httpx2
import pytest
import structlog
from fastapi import Depends, FastAPI, Request, Response
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskscope import Settings, Telemetry, get_logger, in_context, instrument, set_user
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.context import RequestContext, current_request
from taskscope.testing.logs import Line, read_lines
from taskscope.testing.metrics import value
from taskscope.testing.server import serving

_log = get_logger("shop")
_EXEMPLAR = re.compile(
    r'http_server_request_duration_seconds_bucket\{[^}]*http_route="([^"]+)"[^}]*\} \S+ # \{[^}]*trace_id="(\w+)"'
)


def signed_in(user: str) -> None:
    """A dependency that FastAPI runs in a thread."""
    set_user(user)
    _log.info("in a sync dependency")


def work() -> None:
    _log.info("in a thread")


def listed(_number: int) -> None:
    work()


def service() -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def wrapped(request: Request, follow: Callable[[Request], Any]) -> Response:
        response: Response = await follow(request)
        return response

    @app.get("/async/{user}", dependencies=[Depends(signed_in)])
    async def answered(user: str) -> None:
        _log.info("in an async endpoint")
        await asyncio.to_thread(work)
        thread = Thread(target=in_context(work))
        thread.start()
        await asyncio.to_thread(thread.join)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(in_context(listed), range(4)))

    @app.get("/sync/{user}", dependencies=[Depends(signed_in)])
    def answered_in_a_thread(user: str) -> None:
        _log.info("in a sync endpoint")

    @app.get("/me")
    def mine(request: Request) -> None:
        set_user(request.headers["x-user"])

    @app.get("/late/{user}")
    async def known_late(user: str) -> None:
        _log.info("before")
        await asyncio.to_thread(set_user, user)
        _log.info("after")

    @app.get("/broken/{user}")
    async def broken(user: str) -> None:
        set_user(user)
        raise RuntimeError("broken")

    @app.get("/unreadable")
    async def unreadable() -> str:
        class Broken:
            def __str__(self) -> str:
                raise RuntimeError("planted")

        set_user(Broken())  # type: ignore[arg-type] # what a caller may do all the same
        return "served"

    return app


@dataclass(frozen=True)
class Shop:
    """A running service and what is known of it."""

    url: str
    telemetry: Telemetry
    memory: InMemorySpanExporter
    spool: Path

    def ask(self, path: str, **headers: str) -> tuple[str, int]:
        answer = httpx2.get(self.url + path, headers=headers)
        return answer.headers["x-request-id"], answer.status_code

    def lines(self, request_id: str) -> list[Line]:
        """The request's lines, once its access line is there: it comes after the answer."""
        deadline = monotonic() + 5
        while True:
            found = [
                line for line in read_lines(self.spool) if line.get("http.request.id") == request_id
            ]
            if any(line["message"] == "request served" for line in found):
                return found
            assert monotonic() < deadline, "no access line within 5 s"
            sleep(0.005)


@pytest.fixture(params=["h11", "httptools"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    app = service()
    settings = Settings(spool=tmp_path / "spool", instance="one")
    telemetry = instrument(app, service_name="shop", service_version="1", settings=settings)
    memory = InMemorySpanExporter()
    assert telemetry.tracing is not None
    telemetry.tracing.provider.add_span_processor(SimpleSpanProcessor(memory))
    parser: Literal["h11", "httptools"] = request.param
    with serving(app, http=parser) as url:
        yield Shop(url, telemetry, memory, settings.spool)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("async", ["in a sync dependency", "in an async endpoint", *["in a thread"] * 6]),
        ("sync", ["in a sync dependency", "in a sync endpoint"]),
    ],
    ids=["async", "sync"],
)
def test_metric_span_and_every_line_of_a_request_name_the_same(
    shop: Shop, kind: str, said: list[str]
) -> None:
    request_id, _ = shop.ask(f"/{kind}/ada")
    lines = shop.lines(request_id)
    assert [line["message"] for line in lines if line["log.logger"] == "shop"] == said
    assert {line["http.route"] for line in lines} == {f"/{kind}/{{user}}"}
    (user,) = {line["user.hash"] for line in lines}
    assert re.fullmatch(r"[0-9a-f]{32}", user)
    (trace_id,) = {line["trace.id"] for line in lines}
    (span,) = [s for s in shop.memory.get_finished_spans() if s.name == f"GET /{kind}/{{user}}"]
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == trace_id
    assert (span.attributes or {})["user.hash"] == user
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    exposed = httpx2.get(f"{shop.url}/metrics", headers=accept).text
    assert (f"/{kind}/{{user}}", trace_id) in _EXEMPLAR.findall(exposed)


def test_a_user_is_known_from_then_on(shop: Shop) -> None:
    request_id, _ = shop.ask("/late/ada")
    lines = {line["message"]: line for line in shop.lines(request_id)}
    assert "user.hash" not in lines["before"]
    assert lines["after"]["user.hash"] == lines["request served"]["user.hash"]


def test_the_line_of_a_failure_names_the_user_too(shop: Shop) -> None:
    request_id, status = shop.ask("/broken/ada")
    served = next(line for line in shop.lines(request_id) if line["message"] == "request served")
    assert status == 500
    assert served["error.type"] == "builtins.RuntimeError"
    assert "user.hash" in served


def test_the_id_itself_is_nowhere(shop: Shop) -> None:
    request_id, _ = shop.ask("/me", **{"x-user": "ada-lovelace"})
    assert all("user.hash" in line for line in shop.lines(request_id))
    everywhere = b"".join(path.read_bytes() for path in shop.spool.iterdir())
    everywhere += "".join(s.to_json() for s in shop.memory.get_finished_spans()).encode()
    everywhere += httpx2.get(f"{shop.url}/metrics").content
    assert b"ada-lovelace" not in everywhere


def test_requests_at_once_never_mix_their_users(shop: Shop) -> None:
    def ask(number: int) -> tuple[int, str]:
        return number % 5, shop.ask(f"/async/{number % 5}")[0]

    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(ask, range(40)))
    seen: dict[int, set[str]] = {}
    for user, request_id in asked:
        seen.setdefault(user, set()).update(line["user.hash"] for line in shop.lines(request_id))
    assert [len(hashes) for hashes in seen.values()] == [1] * 5
    assert len(set.union(*seen.values())) == 5


def test_an_id_that_cannot_be_read_is_counted_and_the_request_is_served(shop: Shop) -> None:
    request_id, status = shop.ask("/unreadable")
    assert status == 200
    assert all("user.hash" not in line for line in shop.lines(request_id))
    kind = {"component": "logs", "error_type": "RuntimeError"}
    assert value(shop.telemetry.registry, LIBRARY_ERRORS, **kind) == 1


def test_a_user_has_the_same_hash_after_a_restart(tmp_path: Path) -> None:
    hashes = set()
    for _ in range(2):
        app = service()
        settings = Settings(spool=tmp_path / "spool")
        instrument(app, service_name="shop", service_version="1", settings=settings, tracing=False)
        with serving(app) as url:
            httpx2.get(f"{url}/sync/ada")
        hashes |= {
            line["user.hash"] for line in read_lines(tmp_path / "spool") if "user.hash" in line
        }
    assert len(hashes) == 1


def test_outside_of_requests_a_user_is_nobodys() -> None:
    set_user("ada")
    assert current_request.get() is None


@pytest.fixture
def asked() -> Iterator[RequestContext]:
    request = RequestContext(request_id="a" * 32, method="GET", path="/")
    token = current_request.set(request)
    yield request
    current_request.reset(token)


def test_without_logs_a_user_has_a_hash_of_this_process(asked: RequestContext) -> None:
    set_user("ada")
    first = asked.user
    set_user("bob")
    set_user("ada")
    assert first == asked.user
    assert first != "ada"


def test_a_function_in_context_runs_in_many_threads_at_once(asked: RequestContext) -> None:
    together = Barrier(8, timeout=10)

    def work(number: int) -> tuple[int, RequestContext | None]:
        together.wait()
        return number, current_request.get()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(in_context(work), range(8))) == [(n, asked) for n in range(8)]
        assert pool.submit(current_request.get).result() is None


def test_what_a_function_in_context_sets_stays_its_own() -> None:
    def work() -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(tenant="blue")
        return structlog.contextvars.get_contextvars()

    carried = in_context(work)
    assert carried() == carried() == {"tenant": "blue"}
    assert structlog.contextvars.get_contextvars() == {}


def test_a_function_in_context_keeps_its_name_arguments_and_exceptions() -> None:
    def fail(what: str, *, why: str) -> None:
        raise LookupError(what, why)

    carried = in_context(fail)
    assert carried.__name__ == "fail"
    with pytest.raises(LookupError, match="because"):
        carried("gone", why="because")


def test_threads_that_ask_for_the_requests_id_at_once_are_told_one(tmp_path: Path) -> None:
    app, together = FastAPI(), Barrier(8)
    told: list[set[str]] = []

    def ask() -> str:
        together.wait(5)
        request = current_request.get()
        return "" if request is None else request.request_id

    @app.get("/")
    def threads() -> None:
        carried = in_context(ask)
        with ThreadPoolExecutor(8) as pool:
            told.append({each.result() for each in [pool.submit(carried) for _ in range(8)]})

    settings = Settings(spool=tmp_path)
    telemetry = instrument(app, service_name="shop", service_version="1", settings=settings)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with serving(app) as url:
            answered = [{httpx2.get(url).headers["x-request-id"]} for _ in range(20)]
    finally:
        sys.setswitchinterval(before)
    assert told == answered
    assert value(telemetry.registry, LIBRARY_ERRORS) == 0
