"""What an ordinary line costs, from the call to the spool, beside structlog that writes nowhere.

Processor time of the thread that logs, the least of several rounds that take turns: a ratio, which a busy machine
leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any, Final

import msgspec
import structlog

from taskscope.context import RequestContext, current_request
from taskscope.logs import configure, get_logger
from taskscope.settings import Settings

LINES: Final = 1_000
ROUNDS: Final = 9
MOST: Final = 1.8
"""Measured: 0.9 to 1.0, the write to the file included."""


class Nowhere:
    def info(self, _text: object) -> None:
        pass


def peer() -> Any:
    return structlog.wrap_logger(
        Nowhere(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(
                serializer=lambda event, **_: msgspec.json.encode(event)
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=True,
    )


def spent(log: Any) -> float:
    before = thread_time()
    for number in range(LINES):
        log.info(
            "task created", task_id=number, user="u-7", queue="default", wait_s=0.25, retried=False
        )
    return thread_time() - before


def ratio(theirs: Callable[[], float], ours: Callable[[], float]) -> float:
    rounds = [(theirs(), ours()) for _ in range(ROUNDS)]
    return min(each[1] for each in rounds) / min(each[0] for each in rounds)


def test_an_ordinary_line_costs_about_what_structlog_takes_to_render_it(tmp_path: Path) -> None:
    other = peer()
    pipeline = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="taskapi",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    request = RequestContext(
        request_id="a" * 32, method="GET", path="/tasks/7", route="/tasks/{id}", trace_id="b" * 32
    )
    token = current_request.set(request)
    try:
        own = get_logger("app")
        assert ratio(lambda: spent(other), lambda: spent(own)) < MOST
    finally:
        current_request.reset(token)
        pipeline.close()
