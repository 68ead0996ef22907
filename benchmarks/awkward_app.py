"""One small service with all that instrumentation gets wrong, under one tool: python awkward_app.py TOOL PORT

Run by comparison.py in a throwaway environment. The tools are set up as their own documentation says.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from fastapi import APIRouter, BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

SLOW_S = 0.4
"""How long the slow parts take: a stream, a background task, a handler that its client does not wait for."""


def service() -> FastAPI:
    """The service, without instrumentation."""
    app = FastAPI()
    users = APIRouter(prefix="/users")

    @users.get("/{user_id}/tasks/{task_id}")
    async def nested(user_id: int, task_id: int) -> dict[str, int]:
        return {"user": user_id, "task": task_id}

    versions = APIRouter(prefix="/api/v1")
    versions.include_router(users)
    app.include_router(versions)
    _mount(app)
    _plain(app)
    _slow(app)
    return app


def _mount(app: FastAPI) -> None:
    inner = FastAPI()

    @inner.get("/items/{item_id}")
    async def mounted(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    app.mount("/tenants/{tenant}", inner)


def _plain(app: FastAPI) -> None:
    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("planted")

    @app.websocket("/socket/{room}")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()


def _slow(app: FastAPI) -> None:
    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(SLOW_S)
        return "late"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * 1000
                await asyncio.sleep(SLOW_S / 4)

        return StreamingResponse(parts())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(asyncio.sleep, SLOW_S)
        return "sent"

    @app.get("/background/broken")
    async def broken_background(tasks: BackgroundTasks) -> str:
        async def fails() -> None:
            raise RuntimeError("planted")

        tasks.add_task(fails)
        return "sent"


def _taskscope(app: FastAPI) -> None:
    from taskscope import Settings, instrument

    instrument(
        app,
        service_name="awkward",
        service_version="1",
        logs=False,
        settings=Settings(trace_ratio=0.01),
    )


def _instrumentator(app: FastAPI) -> None:
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app).expose(app)


def _starlette_exporter(app: FastAPI) -> None:
    from starlette_exporter import PrometheusMiddleware, handle_metrics

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", handle_metrics)


def _meter_provider() -> Any:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    return MeterProvider(resource=Resource({}), metric_readers=[PrometheusMetricReader()])


def _expose(app: FastAPI) -> None:
    from prometheus_client import make_asgi_app

    app.mount("/metrics", make_asgi_app())


def _tracer_provider(counted: Callable[[], None]) -> Any:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    class Counting(SpanProcessor):
        def on_end(self, span: Any) -> None:
            if span.parent is None or span.parent.is_remote:
                counted()

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.01)))
    provider.add_span_processor(Counting())
    return provider


def _sampled() -> Callable[[], None]:
    from prometheus_client import Counter

    counter = Counter("awkward_sampled", "Server spans that were kept.")
    return counter.inc


def _opentelemetry(app: FastAPI) -> None:
    import os

    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    os.environ["OTEL_PYTHON_FASTAPI_EXCLUDED_URLS"] = "metrics"
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(
        app, meter_provider=_meter_provider(), tracer_provider=_tracer_provider(_sampled())
    )
    _expose(app)


def _native(app: FastAPI) -> None:
    from opentelemetry import metrics, trace

    metrics.set_meter_provider(_meter_provider())
    trace.set_tracer_provider(_tracer_provider(_sampled()))
    _expose(app)


TOOLS: dict[str, Callable[[FastAPI], None]] = {
    "taskscope": _taskscope,
    "instrumentator": _instrumentator,
    "starlette_exporter": _starlette_exporter,
    "opentelemetry": _opentelemetry,
    "native": _native,
}


def main() -> None:
    """Serves until it is ended; log lines of libraries go to standard error."""
    tool, port = sys.argv[1], int(sys.argv[2])
    logging.basicConfig(level=logging.WARNING)
    app = service()
    TOOLS[tool](app)
    uvicorn.run(app, host="127.0.0.1", port=port, http="h11", log_config=None, access_log=False)


if __name__ == "__main__":
    main()
