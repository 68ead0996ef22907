"""Work that an event loop waits for in a thread of its own, not in one of the loop's.

The loop's own threads may all wait, for a name server that is silent say, and then is the time to be scraped, and
the time to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """What `work` gives or raises, for the running loop. Raises RuntimeError if no thread can be started."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(set_: Callable[[Any], None], found: object) -> None:
        if not answer.done():
            set_(found)

    def run() -> None:
        ended: tuple[Callable[[Any], None], object]
        try:
            ended = answer.set_result, work()
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            ended = answer.set_exception, error
        with suppress(RuntimeError):  # the loop is closed, nobody waits any more
            loop.call_soon_threadsafe(settle, *ended)

    Thread(target=run, name=name, daemon=True).start()
    return answer
