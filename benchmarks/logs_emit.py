"""What a call costs that logs a line of five fields: the part of logs.py that runs beside the peers.

It prints one JSON object: microseconds of processor time by variant, or with --paced microseconds on the clock of
single calls at 2,000 lines a second.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import queue
import sys
from collections.abc import Callable
from logging.handlers import QueueHandler
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, sleep, thread_time
from typing import Any, Final

FIELDS: Final = {
    "task_id": 71_204,
    "queue": "mail",
    "wait_s": 0.25,
    "attempt": 1,
    "worker": "north-4",
}
MESSAGE: Final = "task finished"
BATCH: Final = 200
RATE: Final = 2_000

Call = Callable[[], object]


class Null:
    """A logger at the end of a chain that has no sink."""

    def info(self, *_: object, **__: object) -> None:
        """Nothing becomes of it."""


class Nowhere(io.TextIOBase):
    """A stream that keeps nothing."""

    def write(self, text: str, /) -> int:
        return len(text)


def ours(folder: Path) -> Any:
    """The whole pipeline of a service: every line ends in the spool."""
    from taskscope import Settings
    from taskscope.logs import configure

    return configure(
        settings=Settings(spool=folder / "spool", spool_max_bytes=1 << 40, log_rate=0.0),
        service_name="bench",
        service_version="1",
        on_line=lambda _level: None,
        on_drop=lambda *_: None,
        on_error=lambda _error: None,
    )


def our_calls() -> dict[str, Call]:
    """A line through structlog, and one through the standard library."""
    from taskscope.logs import get_logger

    log, standard = get_logger("bench"), logging.getLogger("bench.standard")
    return {
        "taskscope, structlog": lambda: log.info(MESSAGE, **FIELDS),
        "taskscope, logging": lambda: standard.info(MESSAGE, extra=FIELDS),
    }


def peer_calls() -> dict[str, Call]:
    """The peers: each makes its line or its record, and nothing is written anywhere."""
    import ecs_logging
    import orjson
    import structlog

    def bound(*last: Any) -> Any:
        return structlog.wrap_logger(
            Null(),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                *last,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            cache_logger_on_first_use=True,
        )

    def standard(name: str, handler: logging.Handler) -> logging.Logger:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        return logger

    fast = bound(structlog.processors.JSONRenderer(serializer=orjson.dumps))
    ecs = bound(ecs_logging.StructlogFormatter())
    formatted = logging.StreamHandler(Nowhere())
    formatted.setFormatter(ecs_logging.StdlibFormatter())
    ecs_standard = standard("peer.ecs", formatted)
    queued = standard("peer.queue", QueueHandler(Forgetful()))
    return {
        "structlog with orjson, no sink": lambda: fast.info(MESSAGE, **FIELDS),
        "ecs-logging with structlog, no sink": lambda: ecs.info(MESSAGE, **FIELDS),
        "ecs-logging with logging, no sink": lambda: ecs_standard.info(MESSAGE, extra=FIELDS),
        "QueueHandler, its producer's side": lambda: queued.info(MESSAGE, extra=FIELDS),
    }


class Forgetful(queue.Queue[Any]):
    """A queue whose consumer is always in time: it keeps the last few records."""

    def _put(self, item: Any) -> None:
        super()._put(item)
        if len(self.queue) > BATCH:
            self.queue.clear()


def costs(quick: bool, peers: bool) -> dict[str, float]:
    """Microseconds of processor time of a call, by variant: the median of many short batches."""
    with TemporaryDirectory(prefix="taskscope-bench-") as folder:
        pipeline = ours(Path(folder))
        calls = {**our_calls(), **(peer_calls() if peers else {})}
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(60 if quick else 400):
            for name, call in calls.items():
                began = thread_time()
                for _ in range(BATCH):
                    call()
                taken[name].append((thread_time() - began) / BATCH * 1e6)
        pipeline.close()
    return {name: median(times[len(times) // 10 :]) for name, times in taken.items()}


def paced(quick: bool) -> dict[str, float]:
    """Microseconds on the clock of single calls at a steady rate, and the process's time for all of it."""
    with TemporaryDirectory(prefix="taskscope-bench-") as folder:
        pipeline = ours(Path(folder))
        call = our_calls()["taskscope, structlog"]
        for _ in range(BATCH):
            call()
        times: list[float] = []
        count = RATE * (4 if quick else 20)
        began = perf_counter()
        for at in range(count):
            while (ahead := began + at / RATE - perf_counter()) > 0:
                sleep(ahead)
            called = perf_counter()
            call()
            times.append((perf_counter() - called) * 1e6)
        pipeline.close()
    cut = quantiles(times, n=1000)
    return {"p50": cut[499], "p99": cut[989], "p999": cut[998]}


def main() -> None:
    """One JSON object on standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less exact")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--paced", action="store_true", help="single calls at a steady rate")
    asked = parser.parse_args()
    found = paced(asked.quick) if asked.paced else costs(asked.quick, peers=not asked.no_peers)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
