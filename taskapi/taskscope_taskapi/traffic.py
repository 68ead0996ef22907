"""Seeded load on a task API on this machine: open-loop, so that a slow service is not spared."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from taskscope.errors import SettingsError
from taskscope_taskapi.client import Client, Player, Spent
from taskscope_taskapi.plan import Step, plan
from taskscope_taskapi.tally import Summary, Tally

__all__ = ["Control", "drive", "loopback_url", "main"]

_SLOW_S: Final = 0.5
_CONTROL_S: Final = 1.0
_LAST_WORDS_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """rate: steps a second. errors, slow: shares of requests, 0 to 1, that ask for a fault."""

    rate: float
    errors: float = 0.0
    slow: float = 0.0

    def __post_init__(self) -> None:
        for name in ("errors", "slow"):
            share: float = getattr(self, name)
            if not 0 <= share <= 1:
                raise SettingsError(f"{name}: {share} is no share; write a number from 0 to 1")
        if not (math.isfinite(self.rate) and 0 < self.rate <= 10_000):
            raise SettingsError(f"rate: {self.rate} is no rate; write a number up to 10000")

    def faults(self, step: Step) -> dict[str, str]:
        """The headers that ask the service for this step's fault; none is the rule."""
        if step.error_draw < self.errors:
            return {"X-Taskapi-Fault": "error"}
        return {"X-Taskapi-Fault": f"slow={_SLOW_S}"} if step.slow_draw < self.slow else {}


def loopback_url(url: str) -> str:
    """`url`, if it names a service on this machine. Raises SettingsError for any other."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        here = False
    if parts.scheme not in ("http", "https") or not here or parts.username:
        raise SettingsError(
            f"--url: {url} is not on this machine; load is sent to loopback only, such as http://127.0.0.1:8000"
        )
    return f"{parts.scheme}://{parts.netloc}"


def read_control(path: Path, before: Control) -> Control:
    """What the file asks for, or `before` while it is absent, half written or wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wanted = {name: float(found[name]) for name in ("rate", "errors", "slow") if name in found}
        return replace(before, **wanted)
    except (OSError, ValueError, TypeError, SettingsError):
        return before


async def drive(
    url: str,
    *,
    seed: int,
    rate: float,
    requests: int | None = None,
    seconds: float | None = None,
    errors: float = 0.0,
    slow: float = 0.0,
    control: Path | None = None,
    users: int = 4,
    in_flight: int = 64,
    stop: asyncio.Event | None = None,
) -> Summary:
    """What was sent and answered once `requests` were sent, `seconds` have passed, or `stop` is set.

    url: a service on loopback. rate: steps a second, whatever the service answers. errors, slow: shares.
    control: a JSON file with `rate`, `errors` and `slow`, read again each second; each given one holds.
    Raises SettingsError for a URL elsewhere or a share out of range; a service that is down is counted.
    """
    origin = loopback_url(url)
    stop = stop or asyncio.Event()
    tally = Tally()
    started = time.monotonic()
    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx2.AsyncClient(
        base_url=origin, limits=limits, timeout=10.0, trust_env=False
    ) as http:
        load = _Load(
            client=Client(http, tally, budget=requests, clock=time.monotonic),
            tally=tally,
            players=[Player.invented(number) for number in range(users)],
            steps=plan(seed, users=users),
            control=Control(rate=rate, errors=errors, slow=slow),
            control_file=control,
            in_flight=in_flight,
            stop=stop,
        )
        await load.run(until=None if seconds is None else started + seconds)
    return tally.summary(seconds=time.monotonic() - started)


class _Load:
    def __init__(
        self,
        *,
        client: Client,
        tally: Tally,
        players: Sequence[Player],
        steps: Iterator[Step],
        control: Control,
        control_file: Path | None,
        in_flight: int,
        stop: asyncio.Event,
    ) -> None:
        self._client = client
        self._tally = tally
        self._players = players
        self._steps = steps
        self._control = control
        self._control_file = control_file
        self._in_flight = in_flight
        self._stop = stop
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, *, until: float | None) -> None:
        await self._guarded(self._enter_all())
        due = time.monotonic()
        control_due = due
        while not self._stop.is_set() and (until is None or time.monotonic() < until):
            if self._control_file is not None and time.monotonic() >= control_due:
                self._control = read_control(self._control_file, self._control)
                control_due = time.monotonic() + _CONTROL_S
            if len(self._running) < self._in_flight:
                self._begin(next(self._steps))
            else:
                self._tally.shed += 1
            due = max(due + 1 / self._control.rate, time.monotonic() - 1)
            await self._wait(due if until is None else min(due, until))
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=_LAST_WORDS_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _enter_all(self) -> None:
        for player in self._players:
            if not self._stop.is_set():
                await self._client.enter(player)

    def _begin(self, step: Step) -> None:
        task = asyncio.create_task(self._guarded(self._step(step)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _step(self, step: Step) -> None:
        player = self._players[step.user]
        if await self._client.enter(player):
            await self._client.act(player, step, self._control.faults(step))
        else:
            self._tally.shed += 1

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Spent:
            self._stop.set()

    async def _wait(self, due: float) -> None:
        left = due - time.monotonic()
        if left <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(left):
                await self._stop.wait()
        except TimeoutError:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Drives until told to stop, prints the summary as one line of JSON and gives 0; 2 for bad input."""
    given = _arguments().parse_args(arguments)
    try:
        summary = asyncio.run(_until_signal(given))
    except SettingsError as error:
        print(f"traffic: {error}", file=sys.stderr)  # noqa: T201 # a terminal program
        return 2
    print(summary.line(), flush=True)  # noqa: T201
    return 0


async def _until_signal(given: argparse.Namespace) -> Summary:
    stop = asyncio.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wish, stop.set)
    return await drive(
        given.url,
        seed=given.seed,
        rate=given.rate,
        requests=given.requests,
        seconds=given.seconds,
        errors=given.errors,
        slow=given.slow,
        control=given.control,
        users=given.users,
        stop=stop,
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m taskscope_taskapi.traffic",
        description="Send seeded load to a task API on this machine and count the answers.",
    )
    add = parser.add_argument
    add("--url", required=True, help="the service, on loopback: http://127.0.0.1:8000")
    add("--rate", type=float, default=20.0, help="steps a second (%(default)s)")
    add("--seed", type=int, default=7, help="of the plan (%(default)s)")
    add("--requests", type=_positive(int), help="stop after so many requests, logins included")
    add("--for", dest="seconds", type=_positive(float), help="stop after so many seconds")
    add("--errors", type=float, default=0.0, help="share of requests that ask for a 500")
    add("--slow", type=float, default=0.0, help=f"share of requests that ask for {_SLOW_S} s more")
    add("--control", type=Path, help="JSON file with rate, errors and slow, read each second")
    add("--users", type=_positive(int), default=4, help="how many users act (%(default)s)")
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = kind(text)
        if not (math.isfinite(number) and number > 0):
            raise ValueError(text)
        return number

    read.__name__ = "positive number"
    return read


if __name__ == "__main__":
    sys.exit(main())
