"""Requests that scanners, bots and broken clients send, as bytes on a socket: to see that a service shrugs them off.

    asyncio.run(abuse(port, seconds=20, seed=1))

Only to a port of the loopback, for a stated time, from few connections.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

__all__ = ["abuse", "rehearse", "request_bytes"]

_HOST: Final = "127.0.0.1"
_ANSWER_S: Final = 10.0
_KNOWN: Final = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
_SCANNED: Final = (
    "/.env",
    "/wp-login.php",
    "/admin/config.json",
    "/../../etc/passwd",
    "/cgi-bin/status",
    "/api/v1/../v2",
    "/%2e%2e/%2e%2e/",
    "//evil.example/",
)
_WORDS: Final = string.ascii_lowercase + string.digits


def request_bytes(chance: random.Random, paths: tuple[str, ...] = ()) -> bytes:
    """One request: a known or invented method, a scanned or invented path or one of `paths`, odd headers."""
    method = chance.choice(_KNOWN) if chance.random() < 0.7 else _word(chance, 3, 12).upper()
    lines = [f"{method} {_path(chance, paths)} HTTP/1.1", f"Host: {_word(chance, 3, 30)}"]
    lines += [f"{name}: {value}" for name, value in _headers(chance)]
    return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode("latin-1")


async def abuse(
    port: int,
    *,
    seconds: float,
    seed: int,
    paths: tuple[str, ...] = (),
    connections: int = 8,
    most: int | None = None,
    now: Callable[[], float] = monotonic,
) -> Counter[int]:
    """How often each status came back; 0 for a connection that was closed without an answer.

    paths: of the service itself, sent among the others. most: ends after so many requests.
    """
    ends_at = now() + seconds
    told: Counter[int] = Counter()

    async def caller(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")  # noqa: S311 - a seeded load, no secret
        while now() < ends_at and not _enough(told, most):
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await _converse(port, chance, paths, told, lambda: now() < ends_at)

    await asyncio.gather(*(caller(number) for number in range(connections)))
    return told


async def rehearse(port: int, *, paths: tuple[str, ...] = (), left: int = 30) -> None:
    """Each method to each path and to an unknown one, answered once and `left` times without waiting for the answer.

    What `abuse` does later is nothing new to the service then, so that its series may be held to an exact number.
    """
    for method in (*dict.fromkeys(_KNOWN), "INVENTED"):
        for path in (*paths, "/unknown"):
            sent = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
            for waits in (True, *[False] * left):
                reader, writer = await asyncio.open_connection(_HOST, port)
                try:
                    writer.write(sent)
                    await writer.drain()
                    if waits:
                        async with asyncio.timeout(_ANSWER_S):
                            await _answer(reader, head=method == "HEAD")
                except (OSError, asyncio.IncompleteReadError):
                    continue  # an unknown method is refused by some servers, and the connection closed
                finally:
                    writer.close()


def _enough(told: Counter[int], most: int | None) -> bool:
    return most is not None and told.total() >= most


async def _converse(
    port: int,
    chance: random.Random,
    paths: tuple[str, ...],
    told: Counter[int],
    goes_on: Callable[[], bool],
) -> None:
    """Requests over one connection until the server closes it, or a few hundred were sent."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        for _ in range(chance.randrange(1, 300)):
            if not goes_on():
                return
            sent = request_bytes(chance, paths)
            writer.write(sent)
            await writer.drain()
            if chance.random() < 0.01:  # leaves without waiting
                told[0] += 1
                return
            async with asyncio.timeout(_ANSWER_S):
                status, closes = await _answer(reader, head=sent.startswith(b"HEAD "))
            told[status] += 1
            if closes:
                return
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, *, head: bool) -> tuple[int, bool]:
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    length = next((int(x[15:]) for x in lines if x.startswith(b"content-length:")), 0)
    closes = b"connection: close" in lines
    if b"transfer-encoding: chunked" in lines:
        return status, True
    if not head and status not in (204, 304):
        await reader.readexactly(length)
    return status, closes


def _word(chance: random.Random, least: int, most: int) -> str:
    return "".join(chance.choices(_WORDS, k=chance.randint(least, most)))


def _path(chance: random.Random, paths: tuple[str, ...]) -> str:
    kind = chance.random()
    if paths and kind < 0.4:
        return chance.choice(paths)
    if kind < 0.6:
        return chance.choice(_SCANNED)
    deep = "/".join(_word(chance, 1, 20) for _ in range(chance.randint(1, 5)))
    return f"/{deep}{'/' if kind > 0.9 else ''}?{_word(chance, 1, 8)}={_word(chance, 0, 40)}"


def _headers(chance: random.Random) -> list[tuple[str, str]]:
    odd = [(f"X-{_word(chance, 2, 12)}", _word(chance, 0, 60)) for _ in range(chance.randint(0, 6))]
    trace, span = f"{chance.getrandbits(128):032x}", f"{chance.getrandbits(64):016x}"
    sometimes = [
        ("traceparent", f"00-{trace}-{span}-01"),
        ("traceparent", _word(chance, 1, 80)),
        ("baggage", ",".join(f"{_word(chance, 3, 9)}={_word(chance, 9, 99)}" for _ in range(20))),
        ("tracestate", f"{_word(chance, 1, 9)}={_word(chance, 9, 99)}"),
        ("X-Request-Id", _word(chance, 1, 90)),
        ("X-Forwarded-For", ".".join(str(chance.randrange(256)) for _ in range(4))),
        ("User-Agent", _word(chance, 5, 200)),
        ("Accept-Encoding", "gzip"),
    ]
    return odd + [pair for pair in sometimes if chance.random() < 0.4]
