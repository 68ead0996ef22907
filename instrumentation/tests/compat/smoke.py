"""What one app emits under the FastAPI and Starlette that are installed here, against what it must.

    python smoke.py fastapi|starlette|native

Each difference is a line; none, and exit 0, when there are none. Needs the library and uvicorn, nothing else.
Run by test_adoption_here and, under other versions, by benchmarks/adoption.py.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from taskscope import Catalogue, Kind, Metric, Settings, counted, get_logger, instrument
from taskscope.catalogue.builtin import LIBRARY_ERRORS, REQUEST_DURATION
from taskscope.testing.conformance import conformance
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import value
from taskscope.testing.server import serving
from taskscope.testing.spans import captured_spans
from taskscope.testing.waiting import until

SERVED = Metric(
    name="shop.served", kind=Kind.COUNTER, unit="{item}", help="Items served.", owner="shop"
)
PACKED = Metric(
    name="shop.packed", kind=Kind.COUNTER, unit="{item}", help="Items packed.", owner="shop"
)
CATALOGUE = Catalogue(service="shop", metrics=(SERVED, PACKED))
ITEM = "/shops/{shop}/items/{item}"
REQUESTS = (  # method, path, status, route
    ("GET", "/shops/7/items/3", 200, ITEM),
    ("GET", "/sub/parts/5", 200, "/sub/parts/{part}"),
    ("GET", "/plain/hello/you", 200, "/plain/hello/{name}"),
    ("GET", "/boom", 500, "/boom"),
    ("GET", "/stream", 200, "/stream"),
    ("GET", "/nowhere/7", 404, "unmatched"),
    ("DELETE", "/shops/7/items/3", 405, ITEM),
)
EXPECTED = {
    "statuses": [status for _, _, status, _ in REQUESTS],
    "counts": {f"{method} {route} {status}": 1 for method, _, status, route in REQUESTS},
    "exposed series": len(REQUESTS),
    "served": 1,
    "server spans": sorted(
        method if route == "unmatched" else f"{method} {route}" for method, _, _, route in REQUESTS
    ),
    "lines": {"started": 1, "served": 1, "packed": 1},
    "access lines": len(REQUESTS),
    "access lines with their span's trace": len(REQUESTS),
    "library errors": 0,
    "faults": (),
}


@counted(PACKED)
def pack() -> None:
    get_logger("shop").info("packed")


@counted(SERVED)
async def item(shop: int, item: int) -> list[int]:
    get_logger("shop").info("served")
    return [shop, item]


async def boom() -> None:
    raise KeyError("planted")


async def hello(request: Request) -> Response:
    return PlainTextResponse(request.path_params["name"], background=BackgroundTask(pack))


async def chunks() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def stream(request: Request) -> Response:
    return StreamingResponse(chunks())


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    get_logger("shop").info("started")
    yield


def plain() -> Starlette:
    return Starlette(routes=[Route("/hello/{name}", hello)])


def fastapi_app() -> Any:
    from fastapi import APIRouter, FastAPI

    app = FastAPI(lifespan=lifespan)
    router = APIRouter(prefix="/shops/{shop}")
    router.get("/items/{item}")(item)
    app.include_router(router)
    app.get("/boom")(boom)
    app.add_route("/stream", stream)
    sub = FastAPI()
    sub.get("/parts/{part}")(part)
    app.mount("/sub", sub)
    app.mount("/plain", plain())
    return app


async def part(part: int) -> int:
    return part


def starlette_app() -> Starlette:
    async def asked(request: Request) -> Response:
        found = await item(**{name: int(text) for name, text in request.path_params.items()})
        return PlainTextResponse(str(found))

    async def failing(request: Request) -> Response:
        await boom()
        return Response()

    async def parted(request: Request) -> Response:
        return PlainTextResponse(request.path_params["part"])

    shop = Mount("/shops/{shop}", routes=[Route("/items/{item}", asked, methods=["GET"])])
    sub = Starlette(routes=[Route("/parts/{part}", parted)])
    routes = [
        shop,
        Route("/boom", failing),
        Route("/stream", stream),
        Mount("/sub", app=sub),
        Mount("/plain", app=plain()),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def ask(url: str, method: str, path: str) -> int:
    request = urllib.request.Request(url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            error.read()
        return error.code


def counts(samples: Iterable[Any]) -> dict[str, float]:
    """How many requests were counted, by method, route, status and outcome."""
    return {
        " ".join(
            sample.labels[name]
            for name in ("http_request_method", "http_route", "http_response_status_code")
        ): sample.value
        for sample in samples
        if sample.name == f"{REQUEST_DURATION.family}_count"
    }


def emitted(framework: str, spool: Path) -> dict[str, object]:
    """What the app emitted for REQUESTS, with the keys of EXPECTED."""
    app = starlette_app() if framework == "starlette" else fastapi_app()
    tracing: Any = "native" if framework == "native" else True
    asked = {
        "service_name": "shop",
        "service_version": "1",
        "catalogue": CATALOGUE,
        "tracing": tracing,
        "settings": Settings(spool=spool),
    }
    telemetry = instrument(app, **asked)
    assert instrument(app, **asked) is telemetry
    registry = telemetry.registry
    with captured_spans(telemetry) as spans, serving(app) as url:
        statuses = [ask(url, method, path) for method, path, _, _ in REQUESTS]
        exposed = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
        until(lambda: value(registry, PACKED) == 1, saying="the background task ran")
        until(lambda: value(registry, REQUEST_DURATION) == len(REQUESTS), saying="all are counted")
        samples = [sample for family in registry.collect() for sample in family.samples]
        faults = conformance(telemetry).faults
    servers = [span for span in spans() if span.kind.name == "SERVER"]
    lines = read_lines(spool)
    access = [line for line in lines if line["message"] == "request served"]
    traces = {f"{span.context.trace_id:032x}" for span in servers}
    return {
        "statuses": statuses,
        "counts": counts(samples),
        "exposed series": exposed.count(f"{REQUEST_DURATION.family}_count{{"),
        "served": value(registry, SERVED),
        "server spans": sorted(span.name for span in servers),
        "lines": Counter(line["message"] for line in lines if line.get("log.logger") == "shop"),
        "access lines": len(access),
        "access lines with their span's trace": len(
            traces & {line.get("trace.id") for line in access}
        ),
        "library errors": value(registry, LIBRARY_ERRORS),
        "faults": faults,
    }


def differences(framework: str) -> list[str]:
    """A line for each thing that is not as it must be."""
    with TemporaryDirectory(prefix="taskscope-smoke-") as folder:
        found = emitted(framework, Path(folder) / "spool")
    return [
        f"{framework}: {key} are {found[key]}, expected {expected}"
        for key, expected in EXPECTED.items()
        if found[key] != expected
    ]


if __name__ == "__main__":
    told = differences(sys.argv[1])
    sys.stdout.writelines(f"{line}\n" for line in told)
    sys.exit(bool(told))
