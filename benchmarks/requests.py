"""What telemetry adds to a request, ours and the peers': python benchmarks/requests.py [--quick] [--no-peers]

A FastAPI app with 12 and with 60 routes is called as a server calls it, without sockets. Variants take turns in short
batches, so what else the machine does meets all of them; the median of the differences to the plain app, batch by
batch, is what a variant adds. The clock is the thread's own processor time. The floor is a bare ASGI middleware around
one histogram of prometheus_client with cached children. Peers are installed in a throwaway environment, with this
project and the same FastAPI and prometheus_client, and measured there in one process with the floor and with ours.
Needs uv for the peers; a peer that cannot be installed or does not run is named in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram

from taskscope import Settings, instrument

PROJECT: Final = Path(__file__).resolve().parent.parent
ROUTES: Final = (12, 60)
PEERS: Final = (
    "prometheus-fastapi-instrumentator",
    "starlette_exporter",
    "opentelemetry-instrumentation-fastapi",
    "logfire[fastapi]",
)
PINNED: Final = ("fastapi", "starlette", "prometheus-client", "opentelemetry-sdk")
BATCH: Final = 50
LONGEST_S: Final = 120.0
_INSIDE: Final = "--inside"

Scope = MutableMapping[str, Any]
Variant = Callable[[FastAPI, Path], Awaitable[None] | None]


class Bare:
    """The floor: what a careful hand would write for one histogram."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.histogram = Histogram(
            "http_request_duration_seconds",
            "Duration.",
            ["method", "route", "status"],
            registry=CollectorRegistry(),
        )
        self.children: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = perf_counter()
        try:
            await self.app(scope, receive, sending)
        finally:
            route = scope.get("route")
            key = (scope["method"], route.path_format if route else "unmatched", status)
            child = self.children.get(key)
            if child is None:
                child = self.children[key] = self.histogram.labels(key[0], key[1], str(status))
            child.observe(perf_counter() - began)


def floor(app: FastAPI, _folder: Path) -> None:
    """The bare histogram, outside of everything, as ours is."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Bare(build())  # type: ignore[assignment,method-assign]


def ours(
    *, logs: bool = False, tracing: bool = False, shared: bool = False, **chosen: Any
) -> Variant:
    """taskscope with these parts; traces are decided upon and made, and exported nowhere."""

    def prepare(app: FastAPI, folder: Path) -> None:
        settings = Settings(spool=folder / "spool", max_traces_per_second=1e9)
        if shared:
            settings = replace(settings, multiprocess_dir=folder / "workers")
        instrument(
            app,
            service_name="bench",
            service_version="1",
            logs=logs,
            tracing=tracing,
            settings=replace(settings, **chosen),
        )

    return prepare


def instrumentator(app: FastAPI, _folder: Path) -> None:
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator(registry=CollectorRegistry()).instrument(app)


def exporter(app: FastAPI, _folder: Path) -> None:
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware, prefix=f"bench{id(app)}")


def otel_metrics(app: FastAPI, _folder: Path) -> None:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.trace import NoOpTracerProvider

    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    FastAPIInstrumentor.instrument_app(
        app, meter_provider=provider, tracer_provider=NoOpTracerProvider()
    )


def otel_traces(ratio: float) -> Variant:
    def prepare(app: FastAPI, _folder: Path) -> None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.metrics import NoOpMeterProvider
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=TracerProvider(sampler=TraceIdRatioBased(ratio)),
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )

    return prepare


def native_metrics(app: FastAPI, _folder: Path) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    app._native_telemetry.config.update(  # FastAPI >= 0.142: what `FastAPI(telemetry=…)` sets
        {
            "tracing": False,
            "logs": False,
            "metrics": True,
            "meter_provider": MeterProvider(metric_readers=[InMemoryMetricReader()]),
        }
    )


def logfire_all(app: FastAPI, _folder: Path) -> None:
    import logfire

    logfire.configure(send_to_logfire=False, console=False, local=True)
    logfire.instrument_fastapi(app)


OURS: Final[dict[str, Variant]] = {
    "plain app": lambda _app, _folder: None,
    "floor": floor,
    "metrics": ours(),
    "metrics, several workers": ours(shared=True),
    "metrics + line": ours(logs=True),
    "metrics + line + 1 % traces": ours(logs=True, tracing=True, trace_ratio=0.01),
    "metrics + line + 100 % traces": ours(logs=True, tracing=True, trace_ratio=1.0),
}
THEIRS: Final[dict[str, Variant]] = {
    "PFI": instrumentator,
    "starlette_exporter": exporter,
    "OpenTelemetry metrics": otel_metrics,
    "OpenTelemetry traces 1 %": otel_traces(0.01),
    "OpenTelemetry traces 100 %": otel_traces(1.0),
    "FastAPI's own metrics": native_metrics,
    "logfire": logfire_all,
}


def service(routes: int) -> FastAPI:
    """An app of small routes, alike but for their names."""
    app = FastAPI()
    for number in range(routes):

        @app.get(f"/api/v1/things{number}/{{item_id}}", name=f"thing{number}")
        async def thing(item_id: int) -> dict[str, int]:
            return {"item": item_id}

    return app


class Cycle:
    """What uvicorn makes for each request: its methods are what the application receives and sends through."""

    disconnected = False

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        del message


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench"), (b"user-agent", b"bench/1"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 4000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def _batch(app: FastAPI, path: str) -> float:
    """Seconds of processor time a request."""
    began = thread_time()
    for _ in range(BATCH):
        cycle = Cycle()
        await app(_scope(path), cycle.receive, cycle.send)
    return (thread_time() - began) / BATCH


async def measure(
    routes: int, variants: dict[str, Variant], folder: Path, seconds: float
) -> dict[str, float | str]:
    """What each variant adds to a request, in microseconds, or why it does not run."""
    path = f"/api/v1/things{routes // 2}/7"
    apps: dict[str, FastAPI] = {}
    added: dict[str, float | str] = {}
    for number, (name, prepare) in enumerate(variants.items()):
        app = service(routes)
        try:
            prepare(app, folder / f"{routes}-{number}")
            for _ in range(6):
                await _batch(app, path)
        except Exception as error:  # noqa: BLE001 - a peer that does not run is named in the table
            added[name] = f"does not run: {type(error).__name__}: {error}"[:100]
            continue
        apps[name] = app
    taken: dict[str, list[float]] = {name: [] for name in apps}
    deadline = perf_counter() + seconds
    while perf_counter() < deadline:
        for name, app in apps.items():
            taken[name].append(await _batch(app, path))
    plain = taken["plain app"]
    for name, batches in taken.items():
        added[name] = median(a - b for a, b in zip(batches, plain, strict=True)) * 1e6
    for app in apps.values():
        telemetry = getattr(app.state, "telemetry", None)
        if telemetry is not None:
            telemetry.close()
    return added


def table(found: dict[int, dict[str, float | str]]) -> str:
    """Added microseconds and the multiple of the floor, for both sizes of app."""
    few, many = ROUTES
    lines = [f"{'added to a request':<32}" + "".join(f"{n:>9} routes {'':>6}" for n in ROUTES)]
    for name in found[few]:
        cells = []
        for routes in ROUTES:
            added, bare = found[routes].get(name, "absent"), found[routes]["floor"]
            if isinstance(added, str) or isinstance(bare, str):
                cells.append(f"  {added}")
            else:
                cells.append(f"{added:>10.1f} µs {added / bare:>6.1f} x")
        lines.append(f"{name:<32}" + "  ".join(cells))
    return "\n".join([*lines, "", *budgets(found[few], few), *budgets(found[many], many)])


def budgets(added: dict[str, float | str], routes: int) -> list[str]:
    """A sentence for each budget: what was found, and whether it is kept."""

    def of(name: str) -> float:
        found = added.get(name, float("nan"))
        return float("nan") if isinstance(found, str) else found

    bare, metrics = of("floor"), of("metrics")
    traced = of("PFI") + of("OpenTelemetry traces 1 %")
    checked = (
        ("metrics alone: at most 1.5 x the floor", metrics, 1.5 * bare),
        ("metrics alone: at least 5 x cheaper than PFI", metrics, of("PFI") / 5),
        ("metrics and a line: at most 4 x the floor", of("metrics + line"), 4 * bare),
        ("… and 1 % traces: at most 8 x the floor", of("metrics + line + 1 % traces"), 8 * bare),
        (
            "… at least 3 x cheaper than PFI and OpenTelemetry",
            of("metrics + line + 1 % traces"),
            traced / 3,
        ),
        (
            "100 % traces: at most OpenTelemetry's and 4 x the floor",
            of("metrics + line + 100 % traces"),
            of("OpenTelemetry traces 100 %") + 4 * bare,
        ),
        ("several workers: at most 4 µs more", of("metrics, several workers") - metrics, 4.0),
    )
    return [
        f"{routes:>3} routes  {what:<56}{found:>8.1f} of {most:>6.1f} µs  "
        + (
            "not measured"
            if found != found or most != most
            else "kept"
            if found <= most
            else "MISSED"
        )
        for what, found, most in checked
    ]


def environment(folder: Path) -> tuple[Path, list[str]]:
    """The throwaway environment's Python, and which peers could not be installed in it."""
    uv = shutil.which("uv") or str(PROJECT / ".tools" / "bin" / "uv")
    where = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, where], check=True)
    python = where / "bin" / "python"
    same = [f"{name}=={version(name)}" for name in PINNED]
    install = [uv, "pip", "install", "--quiet", "--prerelease", "allow", "--python", str(python)]
    subprocess.run([*install, *same, str(PROJECT)], check=True)
    absent = [
        peer for peer in PEERS if subprocess.run([*install, *same, peer], check=False).returncode
    ]
    return python, absent


def run(quick: bool, peers: bool) -> str:
    """The table, measured in this process."""
    seconds = 8.0 if quick else 50.0
    variants = {**OURS, **(THEIRS if peers else {})}
    with TemporaryDirectory(prefix="taskscope-bench-") as folder:
        found = {
            routes: asyncio.run(measure(routes, variants, Path(folder), seconds))
            for routes in ROUTES
        }
    return table(found)


def main() -> None:
    """The table is on standard output."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="below 40 s, less exact")
    arguments.add_argument("--no-peers", action="store_true", help="nothing is installed")
    arguments.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.inside:
        sys.stdout.write(run(asked.quick, peers=not asked.no_peers) + "\n")
        return
    with TemporaryDirectory(prefix="taskscope-peers-") as folder:
        python, absent = Path(sys.executable), list[str]()
        if not asked.no_peers:
            python, absent = environment(Path(folder))
        # -P: a library that imports `requests` must not find this file.
        words = [str(python), "-P", __file__, _INSIDE, *sys.argv[1:]]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    for peer in absent:
        sys.stdout.write(f"not installed, so not measured: {peer}\n")


if __name__ == "__main__":
    main()
