"""What a scrape costs, and what is written for it: python benchmarks/scrape.py

The same 10,000 series in taskscope and in prometheus_client, in one process. The two take turns, in rounds, so a
busy machine shifts both; medians are printed. The bytes of both are compared, and a difference ends the run with 1.
Workers of several processes are measured in a process of their own each, for prometheus_client decides at import.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import prometheus_client
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from taskscope import Catalogue, Kind, Label, Metric
from taskscope.catalogue import Target
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.rendering import Renderer
from taskscope.metrics.store import Store

_ROUNDS: Final = 9
_HOT_ROUNDS: Final = 15
_HOT_CALLS: Final = 20_000
_ROUTES: Final = 500
_DEAD: Final = 64
_WORKER_ROUTES: Final = 50
_TARGET: Final = "bench"
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_COUNTERS: Final = ("visits", "answers", "orders")

Row = tuple[str, float, float, str]


def _metric(name: str, kind: Kind) -> Metric:
    return Metric(
        name=f"bench.{name}",
        kind=kind,
        unit="s" if kind is Kind.HISTOGRAM else f"{{{name}}}",
        help=f"What the benchmark counts as {name}.",
        owner="bench",
        target=_TARGET,
        labels=(
            Label("http.route", cap=_ROUTES, bounded_by="the benchmark"),
            Label("zone", values=("north",)),
        ),
        buckets=_BOUNDS if kind is Kind.HISTOGRAM else (),
    )


_METRICS: Final = (
    *(_metric(name, Kind.COUNTER) for name in _COUNTERS),
    _metric("wait", Kind.HISTOGRAM),
)
_CATALOGUE: Final = Catalogue(
    service="bench", metrics=_METRICS, targets=(Target(name=_TARGET, job="bench-only"),)
)


def _content(routes: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Routes, each with amounts for the counters and seconds for the histogram; the same each time."""
    rng = random.Random(20261124)  # noqa: S311 - the same numbers for both, each time
    for number in range(routes):
        amounts = [float(rng.randrange(10**7)) for _ in _COUNTERS]
        yield f"/api/v1/things/{number}", amounts, [rng.expovariate(1.0) for _ in range(20)]


def _ours(routes: int, store: Store | None = None) -> Instruments:
    instruments = Instruments(_CATALOGUE, target=_TARGET, store=store)
    for route, amounts, seconds in _content(routes):
        for metric, amount in zip(_METRICS, amounts, strict=False):
            instruments.counter(metric).at((route, "north")).inc(amount)
        for each in seconds:
            instruments.histogram(_METRICS[-1]).at((route, "north")).observe(each)
    return instruments


def _peers(routes: int) -> prometheus_client.CollectorRegistry:
    registry = prometheus_client.CollectorRegistry()
    made: list[Any] = []
    for metric in _METRICS:
        names = metric.label_names
        if metric.kind is Kind.COUNTER:
            made.append(
                prometheus_client.Counter(metric.family, metric.help, names, registry=registry)
            )
        else:
            made.append(
                prometheus_client.Histogram(
                    metric.family, metric.help, names, registry=registry, buckets=_BOUNDS
                )
            )
    for route, amounts, seconds in _content(routes):
        for metric, amount in zip(made, amounts, strict=False):
            metric.labels(route, "north").inc(amount)
        for each in seconds:
            made[-1].labels(route, "north").observe(each)
    return registry


def _in_turn(
    ours: Callable[[], object], peers: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, times in zip((ours, peers), taken, strict=True):
            began = perf_counter()
            call()
            times.append(perf_counter() - began)
    return taken


def _row(name: str, taken: tuple[list[float], list[float]], scale: float, unit: str) -> Row:
    return name, median(taken[0]) * scale, median(taken[1]) * scale, unit


def rendering(
    instruments: Instruments, registry: prometheus_client.CollectorRegistry
) -> Iterator[Row]:
    """Both formats; SystemExit where the bytes differ."""
    renderer = Renderer(_METRICS)
    for name, openmetrics in (("text", False), ("OpenMetrics", True)):
        generate: Callable[[Any], bytes] = (
            generate_openmetrics if openmetrics else prometheus_client.generate_latest
        )

        def ours(openmetrics: bool = openmetrics) -> bytes:
            return renderer.render(instruments.readings(), openmetrics=openmetrics)

        def peers(generate: Callable[[Any], bytes] = generate) -> bytes:
            return generate(registry)

        if ours() != peers():
            raise SystemExit(f"benchmarks/scrape.py: the bytes of {name} differ")
        yield _row(f"render 10,000 series, {name}", _in_turn(ours, peers, _ROUNDS), 1e3, "ms")


async def _longest_hold(scrape: Callable[[], Awaitable[object]]) -> float:
    """The longest time between two turns of the loop while the scrape goes on, in seconds."""
    running = asyncio.ensure_future(scrape())
    longest, before = 0.0, perf_counter()
    while not running.done():
        await asyncio.sleep(0)
        now = perf_counter()
        longest, before = max(longest, now - before), now
    await running
    return longest


def holding(
    instruments: Instruments, registry: prometheus_client.CollectorRegistry
) -> Iterator[Row]:
    """How long other requests wait: ours in a thread, the peer as its own handler does it."""
    renderer = Renderer(_METRICS)
    app = prometheus_client.make_asgi_app(registry)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}

    def render() -> bytes:
        return renderer.render(instruments.readings(), openmetrics=False)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        del message

    async def measure() -> tuple[list[float], list[float]]:
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(_ROUNDS):
            taken[0].append(await _longest_hold(lambda: asyncio.to_thread(render)))
            taken[1].append(await _longest_hold(lambda: app(scope, receive, send)))
        return taken

    taken = asyncio.run(measure())
    yield _row("loop held by a scrape, median", taken, 1e3, "ms")
    yield "loop held by a scrape, longest", max(taken[0]) * 1e3, max(taken[1]) * 1e3, "ms"


def memory() -> Iterator[Row]:
    """Bytes for each exposed series, what a first scrape leaves behind included."""
    held: list[float] = []
    for ours in (True, False):
        kept: tuple[object, ...]
        tracemalloc.start()
        if ours:
            instruments, renderer = _ours(_ROUTES), Renderer(_METRICS)
            renderer.render(instruments.readings(), openmetrics=False)
            kept = (instruments, renderer)
        else:
            registry = _peers(_ROUTES)
            prometheus_client.generate_latest(registry)
            kept = (registry,)
        held.append(
            tracemalloc.get_traced_memory()[0] / (_ROUTES * (len(_COUNTERS) + len(_BOUNDS) + 3))
        )
        tracemalloc.stop()
        del kept
    yield "memory for a series", held[0], held[1], "B"


def hot_paths(
    instruments: Instruments, registry: prometheus_client.CollectorRegistry
) -> Iterator[Row]:
    """One call of a child that is kept at hand."""
    labels = ("/api/v1/things/7", "north")
    native: Any = registry._names_to_collectors  # by family
    counter, counted = instruments.counter(_METRICS[0]), native[_METRICS[0].family]
    wait, waited = instruments.histogram(_METRICS[-1]), native[_METRICS[-1].family]
    for name, ours, peers, arguments in (
        ("inc of a kept child", counter.at(labels).inc, counted.labels(*labels).inc, ()),
        (
            "observe of a kept child",
            wait.at(labels).observe,
            waited.labels(*labels).observe,
            (0.2,),
        ),
    ):

        def many(call: Callable[..., object], arguments: tuple[float, ...] = arguments) -> None:
            for _ in range(_HOT_CALLS):
                call(*arguments)

        taken = _in_turn(lambda o=ours: many(o), lambda p=peers: many(p), _HOT_ROUNDS)  # type: ignore[misc] # bound now
        yield _row(name, taken, 1e9 / _HOT_CALLS, "ns")


def _die_after(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)  # as by SIGKILL: nobody tidies up
    os.waitpid(pid, 0)


def _scrapes_s(scrape: Callable[[], object]) -> float:
    scrape()
    taken = []
    for _ in range(_ROUNDS):
        began = perf_counter()
        scrape()
        taken.append(perf_counter() - began)
    return median(taken)


def workers_of_ours(folder: Path) -> list[float]:
    """Seconds of a scrape with one live worker and 0, then 64 dead ones."""
    from taskscope.multiprocess import WorkerFolder, WorkerStore

    def work() -> Instruments:
        return _ours(_WORKER_ROUTES, WorkerStore(folder, service="bench"))

    renderer, workers = Renderer(_METRICS), WorkerFolder(folder, service="bench", known=_METRICS)
    alive = work()

    def scrape() -> bytes:
        return renderer.render(workers.collect().readings, openmetrics=False)

    taken = [_scrapes_s(scrape)]
    for _ in range(_DEAD):
        _die_after(work)
    taken.append(_scrapes_s(scrape))
    del alive
    return taken


def workers_of_peers(folder: Path) -> list[float]:
    """The same of prometheus_client, whose folder is in PROMETHEUS_MULTIPROC_DIR."""
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = prometheus_client.CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call] # without types
    alive = _peers(_WORKER_ROUTES)

    def scrape() -> bytes:
        return prometheus_client.generate_latest(registry)

    taken = [_scrapes_s(scrape)]
    for _ in range(_DEAD):
        _die_after(lambda: _peers(_WORKER_ROUTES))
    taken.append(_scrapes_s(scrape))
    del alive
    return taken


def workers() -> Iterator[Row]:
    """Scrapes of one live worker beside 0 and 64 dead ones, 1,000 series in each."""
    taken: dict[str, list[float]] = {}
    for whose in ("ours", "peers"):
        with TemporaryDirectory(prefix="taskscope-bench-") as folder:
            answer = subprocess.run(
                [sys.executable, __file__, whose, folder],
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder},
                check=True,
                capture_output=True,
                timeout=40,
            )
        taken[whose] = json.loads(answer.stdout)
    for place, dead in enumerate((0, _DEAD)):
        ours, peers = taken["ours"][place] * 1e3, taken["peers"][place] * 1e3
        yield f"scrape of a worker and {dead} dead", ours, peers, "ms"


def main() -> None:
    """The table is on standard output."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # without types
    if sys.argv[1:]:
        measured = {"ours": workers_of_ours, "peers": workers_of_peers}[sys.argv[1]](
            Path(sys.argv[2])
        )
        sys.stdout.write(json.dumps(measured))
        return
    instruments, registry = _ours(_ROUTES), _peers(_ROUTES)
    lines = [f"{'':<36}{'taskscope':>12}{'prometheus_client':>20}{'ratio':>8}"]
    sections = (
        rendering(instruments, registry),
        holding(instruments, registry),
        memory(),
        hot_paths(instruments, registry),
        workers(),
    )
    for section in sections:
        for name, ours, peers, unit in section:
            lines.append(
                f"{name:<36}{ours:>9.2f} {unit:<2}{peers:>17.2f} {unit:<2}{peers / ours:>7.1f}x"
            )
    lines.append("The bytes of both are equal, in both formats.")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
