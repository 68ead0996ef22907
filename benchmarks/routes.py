"""What a request costs in an app of 10,000 routes, beside one of 12: python benchmarks/routes.py

Beyond the bound of the route label (200) requests are folded into one series, counted and told of as folded. The
application picks a route and answers at once, so that only what we add is seen; variants take turns in batches, and
the median of the differences to the application alone is printed. Bounded: about ten seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from statistics import median
from time import thread_time
from typing import Any, Final

from taskscope import Catalogue
from taskscope.metrics.instruments import Instruments
from taskscope.requests.middleware import Hooks, RequestMiddleware

ROUTES: Final = (12, 10_000)
_ROUNDS: Final = 25
_REQUESTS: Final = 2_000
_GOAL: Final = 1.2

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class Route:
    """What a router puts into the scope, as far as we look at it."""

    def __init__(self, number: int) -> None:
        self.path_format = f"/route-{number}/{{item}}"


class Routed:
    """An application as far as its routes are asked for."""

    routes: tuple[()] = ()


def application(routes: int) -> App:
    """Answers each request by the next of its routes."""
    turn = itertools.cycle([Route(number) for number in range(routes)])
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]

    async def answer(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        del receive
        scope["route"], scope["endpoint"] = next(turn), answer
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        await send({"type": "http.response.body", "body": b"{}"})

    return answer


def measured(app: App) -> App:
    """The application inside of our layer."""
    hooks = Hooks(
        excluded=frozenset(),
        failed=lambda _component, _error: None,
        instruments=Instruments(Catalogue(service="bench")),
    )
    return RequestMiddleware(app, routed=Routed(), hooks=hooks)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    del message


async def batch(app: App, requests: int) -> float:
    """Microseconds of processor time for each of so many requests."""
    began = thread_time()
    for _ in range(requests):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
        await app(scope, _receive, _send)
    return (thread_time() - began) / requests * 1e6


async def measure() -> dict[int, float]:
    """What is added to a request, by the number of routes."""
    pairs = {count: (plain := application(count), measured(plain)) for count in ROUTES}
    for plain, ours in pairs.values():
        await batch(plain, _REQUESTS)
        await batch(ours, 2 * max(ROUTES))
    added: dict[int, list[float]] = {count: [] for count in ROUTES}
    for _ in range(_ROUNDS):
        for count, (plain, ours) in pairs.items():
            added[count].append(-await batch(plain, _REQUESTS) + await batch(ours, _REQUESTS))
    return {count: median(differences) for count, differences in added.items()}


def main() -> None:
    """The table is on standard output."""
    logging.disable()  # that labels are folded is known here
    added = asyncio.run(measure())
    few, many = (added[count] for count in ROUTES)
    for count, microseconds in added.items():
        sys.stdout.write(f"{count:>7,} routes {microseconds:>7.2f} µs added\n")
    kept = "kept" if many <= _GOAL * few else "MISSED"
    sys.stdout.write(f"{many / few:.2f} x, goal at most {_GOAL} x: {kept}\n")


if __name__ == "__main__":
    main()
