"""One secret of every shape is planted wherever a service tells something; none is found in what leaves it."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry import trace
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request as Posted
from starlette.responses import Response
from starlette.routing import Route

import taskscope
from taskscope import Settings
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.redaction import Redaction
from taskscope.testing.metrics import value
from taskscope.testing.needles import NEEDLES, Needle, hidden_by
from taskscope.testing.server import serving

log = taskscope.get_logger("shop")
plain = logging.getLogger("shop.plain")


@dataclass
class Order:
    """As services have them; its text is that of a dataclass."""

    number: int
    note: str


class Login(BaseModel):
    """A body that no needle fits."""

    name: str
    password: str = Field(min_length=5_000)


def shop() -> FastAPI:
    app = FastAPI()

    @app.get("/told")
    async def told() -> int:
        for needle in NEEDLES:
            tell(needle.text)
        return 1

    @app.get("/traced")
    async def traced() -> int:
        tracer = trace.get_tracer("shop", tracer_provider=app.state.telemetry.tracing.provider)
        for needle in NEEDLES:
            span_of(tracer, needle.text)
        return 1

    @app.post("/login")
    async def login(login: Login) -> int:
        return 1

    @app.get("/failing/{number}")
    async def failing(number: int, request: Request) -> int:
        password = NEEDLES[number].text
        raise RuntimeError(password)

    return app


def tell(text: str) -> None:
    log.info("a value", note=text, n=1)
    log.info(text)
    log.info("a key", **{text: 1})
    log.info("bytes", note=text.encode(), rest=bytearray(text.encode()))
    log.info("nested", order={"lines": [{"note": text}, (text, 7)], text: {"x": {text}}})
    log.info("an object", order=Order(number=7, note=text), error=ValueError(text))
    plain.warning("an argument %s and %r", text, {"note": text})
    plain.error("extra", extra={"note": text, "url.query": text})
    try:
        refuse(text)
    except ValueError:
        log.exception("handled", note=text)


def refuse(password: str) -> None:
    """Raises ValueError; the argument is a local variable of its frame."""
    raise ValueError(password)


def span_of(tracer: trace.Tracer, text: str) -> None:
    link = trace.Link(trace.get_current_span().get_span_context(), {"note": text})
    with tracer.start_as_current_span(f"work {text}", links=[link]) as span:
        span.set_attribute("url.query", text)
        span.set_attribute("db.statement", text)
        span.set_attribute("notes", ["plain", text])
        span.set_attribute(text, 1)
        span.add_event(text, {"note": text})
        span.record_exception(ValueError(text))
        span.set_status(trace.StatusCode.ERROR, text)


def ask(url: str) -> None:
    once = httpx.Limits(max_keepalive_connections=0)  # a failure ends its connection
    with httpx.Client(base_url=url, limits=once) as client:
        client.get("/told")
        client.get("/traced")
        for number, needle in enumerate(NEEDLES):
            asked = quote(needle.text, safe="")
            sent = " ".join(needle.text.split())
            client.get(
                f"/failing/{number}",
                params={"note": needle.text},
                headers={"user-agent": sent, "x-request-id": sent, "x-note": sent},
            )
            client.get(f"/nowhere/{asked}?note={asked}", headers={"referer": sent, "cookie": sent})
            client.post("/login", json={"name": needle.text, "password": needle.text})


@dataclass(frozen=True)
class Left:
    """Everything that left the process, by surface."""

    preset: str
    surfaces: dict[str, bytes]
    errors: dict[str, float]


@pytest.fixture(scope="module", params=["default", "strict"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    received: list[bytes] = []

    async def receive(posted: Posted) -> Response:
        received.append(await posted.body())
        return Response()

    folder: Path = tmp_path_factory.mktemp("spool")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(Starlette(routes=[Route("/v1/traces", receive, methods=["POST"])])) as collector,
    ):
        printed = io.StringIO()
        patch.setattr(sys, "stderr", printed)
        app = shop()
        telemetry = taskscope.instrument(
            app,
            service_name="shop",
            service_version="1",
            settings=Settings(
                spool=folder,
                log_level="DEBUG",
                log_stderr=True,
                otlp_endpoint=collector,
                max_traces_per_second=1e9,
            ),
            redact=Redaction(presets=(request.param,)),
        )
        with serving(app) as url:
            ask(url)
            exposed = telemetry.metrics(openmetrics=True)
        telemetry.close()
    return Left(
        request.param,
        {
            "spool": b"".join(each.read_bytes() for each in sorted(folder.glob("*.seg"))),
            "standard error": printed.getvalue().encode(),
            "spans": b"".join(received),
            "exposition": exposed,
        },
        {
            component: value(telemetry.registry, LIBRARY_ERRORS, component=component)
            for component in ("logs", "tracing")
        },
    )


def test_every_surface_was_written_to(left: Left) -> None:
    assert left.errors == {"logs": 0, "tracing": 0}
    sizes = {name: len(found) for name, found in left.surfaces.items()}
    assert sizes["spool"] > 200_000
    assert sizes["standard error"] > 200_000
    assert sizes["spans"] > 100_000
    assert b"trace_id=" in left.surfaces["exposition"]
    for told in (b"[redacted]", b"handled", b"an argument"):
        assert told in left.surfaces["spool"]


def test_no_needle_is_on_any_surface(left: Left) -> None:
    found = [
        f"{secret} of {needle.name!r} on {surface}"
        for needle in hidden_by(left.preset)
        for secret in needle.secret
        for surface, told in left.surfaces.items()
        if secret.encode() in told or quote(secret, safe="").encode() in told
    ]
    assert found == []


def test_what_no_preset_hides_is_seen(left: Left) -> None:
    """Otherwise a surface that is empty, or hidden whole, would pass."""
    for harmless in (b"paid with", b"page=2", b"grant_type=password", b"on Monday"):
        assert harmless in left.surfaces["spool"]
        assert harmless in left.surfaces["spans"]


@pytest.mark.parametrize("needle", NEEDLES, ids=lambda needle: needle.name)
def test_a_needle_is_where_it_was_planted(needle: Needle) -> None:
    """A needle whose secret is not in its text could never be found."""
    assert all(secret in needle.text or secret in decoded(needle.text) for secret in needle.secret)


def decoded(text: str) -> str:
    from urllib.parse import unquote

    return unquote(unquote(text))
