"""Requests side by side: one server takes several portions in less time than one after the other."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from taskscope_exporters.logs.client import SHIPPER_THREAD

__all__ = ["side_by_side"]

_NAME: Final = f"{SHIPPER_THREAD}-lane"

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R | Exception]:
    """For each item what `work` gave or raised, in order; the first is worked on in this thread, others beside it.

    A thread lives as long as its item: a tenth of a millisecond in a hundred, and nothing is left to be ended.
    """
    found: list[R | Exception] = [RuntimeError("not done")] * len(items)

    def do(place: int) -> None:
        try:
            found[place] = work(items[place])
        except Exception as error:  # noqa: BLE001 # the caller judges it
            found[place] = error

    threads = [_begun(do, place) for place in range(1, len(items))]
    if items:
        do(0)
    for thread in threads:
        if thread is not None:
            thread.join()
    return found


def _begun(do: Callable[[int], None], place: int) -> threading.Thread | None:
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(do, place), name=_NAME, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # No thread can start while the interpreter shuts down, or there are too many: one after the other, then.
        do(place)
        return None
    return thread
