"""A process that runs out of what it needs, for tests of what it does then. Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["descriptors_left"]

_SPARE = 32


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Inside the block this process can open so many more files, at most 32, and after it as many as before."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + _SPARE, hard))
        while (file := _another()) is not None:
            taken.append(file)
        for _ in range(number):
            os.close(taken.pop())
        yield
    finally:
        for file in taken:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _another() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
