"""What a request costs more with telemetry: python benchmarks/request_cost.py

A FastAPI app with the routes of a small service is called as a server calls it, without sockets, so that
only the app and the telemetry are measured. Variants take turns, in rounds; each round's share of the floor is
taken within the round, so a busy machine shifts both. The median of the rounds is printed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from fastapi import FastAPI

from taskscope import Settings, Telemetry, instrument

_ROUNDS: Final = 15
_REQUESTS: Final = 300
_WARM_UP: Final = 200
_LIMIT_S: Final = 50.0

Scope = MutableMapping[str, Any]
Call = Callable[[], Awaitable[None]]

# variant: metrics, logs, tracing; None is the bare app
_VARIANTS: Final[dict[str, tuple[bool, bool, bool] | None]] = {
    "bare app": None,
    "metrics": (True, False, False),
    "metrics + logs": (True, True, False),
    "metrics + logs + tracing": (True, True, True),
}


def _service() -> FastAPI:
    app = FastAPI()
    for name in ("users", "teams", "tasks", "comments"):

        @app.get(f"/api/v1/{name}/{{item_id}}", name=name)
        async def item(item_id: int) -> dict[str, int]:
            return {"item": item_id}

    return app


def _prepared(
    parts: tuple[bool, bool, bool] | None, spool: Path
) -> tuple[FastAPI, Telemetry | None]:
    app = _service()
    if parts is None:
        return app, None
    metrics, logs, tracing = parts
    telemetry = instrument(
        app,
        service_name="bench",
        service_version="1",
        metrics=metrics,
        logs=logs,
        tracing=tracing,
        settings=Settings(spool=spool),
    )
    return app, telemetry


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    del message


async def _call(app: FastAPI) -> None:
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/v1/tasks/7",
        "raw_path": b"/api/v1/tasks/7",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench"), (b"user-agent", b"bench/1"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 4000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, _receive, _send)


async def _seconds(app: FastAPI, requests: int) -> float:
    began = perf_counter()
    for _ in range(requests):
        await _call(app)
    return (perf_counter() - began) / requests


async def _measure(apps: dict[str, FastAPI]) -> dict[str, list[float]]:
    for app in apps.values():
        await _seconds(app, _WARM_UP)
    taken: dict[str, list[float]] = {name: [] for name in apps}
    deadline = perf_counter() + _LIMIT_S
    for _ in range(_ROUNDS):
        for name, app in apps.items():
            taken[name].append(await _seconds(app, _REQUESTS))
        if perf_counter() > deadline:
            break
    return taken


def _table(taken: dict[str, list[float]]) -> str:
    floor = taken["bare app"]
    lines = [f"{'variant':<26}{'µs/request':>12}{'added µs':>10}{'of floor':>10}"]
    for name, rounds in taken.items():
        added = median(each - bare for each, bare in zip(rounds, floor, strict=True))
        share = median(each / bare for each, bare in zip(rounds, floor, strict=True))
        lines.append(f"{name:<26}{median(rounds) * 1e6:>12.1f}{added * 1e6:>10.1f}{share:>9.2f}x")
    return "\n".join(lines)


def main() -> None:
    """The table is on standard output."""
    with TemporaryDirectory(prefix="taskscope-bench-") as folder:
        made = {
            name: _prepared(parts, Path(folder) / str(number))
            for number, (name, parts) in enumerate(_VARIANTS.items())
        }
        taken = asyncio.run(_measure({name: app for name, (app, _) in made.items()}))
        for _, telemetry in reversed(made.values()):
            if telemetry is not None:
                telemetry.close()
    sys.stdout.write(_table(taken) + "\n")


if __name__ == "__main__":
    main()
