"""Each event has its rate: one that runs wild is held, counted and said, and no other one is touched."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskscope.logs import LogPipeline, configure, get_logger
from taskscope.logs.events import MOST_EVENTS, Event, Events
from taskscope.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def events(clock: Clock, *, per_second: float = 10, burst: int = 20) -> Events:
    return Events(
        per_second=per_second,
        burst=burst,
        head=lambda *_: b"",
        met=lambda: None,
        monotonic=clock,
    )


def passed(these: Events, lines: int, name: str = "x") -> int:
    return sum(these.allowed("info", "app", name) is not None for _ in range(lines))


def test_after_its_burst_an_event_has_its_rate() -> None:
    clock = Clock()
    these = events(clock)
    assert passed(these, 1000) == 10
    for second in range(1, 11):
        clock.now = float(second)
        assert passed(these, 1000) == 10
    assert [(each.name, each.lines) for each in these.said()] == [("x", 1000 * 11 - 110)]
    assert these.said() == []


def test_after_a_silence_there_is_a_burst_and_never_more() -> None:
    clock = Clock()
    these = events(clock)
    passed(these, 1000)
    clock.now = 3600.0
    assert passed(these, 1000) <= 20


def test_one_event_does_not_use_up_anothers_rate() -> None:
    these = events(Clock())
    passed(these, 1000, "wild")
    assert passed(these, 5, "calm") == 5
    assert these.allowed("error", "app", "wild") is not None
    assert these.allowed("info", "other", "wild") is not None


def test_without_a_rate_there_is_no_bound() -> None:
    assert passed(events(Clock(), per_second=0), 1000) == 1000


def test_events_without_number_are_bounded_in_memory_and_those_held_are_still_told_apart() -> None:
    clock = Clock()
    these = events(clock)
    passed(these, 1000, "wild")
    calm = [these.allowed("info", "app", f"event {number}") for number in range(3 * MOST_EVENTS)]
    assert None not in calm
    assert len(these.known) <= MOST_EVENTS
    assert passed(these, 10, "wild") == 0


def test_when_all_that_are_known_are_held_new_ones_share_a_bound() -> None:
    clock = Clock()
    these = events(clock, burst=2)
    for number in range(MOST_EVENTS + 100):
        passed(these, 3, f"event {number}")
    assert len(these.known) <= MOST_EVENTS + 1
    assert "[other events]" in {each.name for each in these.said()}


def test_an_event_holds_nothing_but_its_own() -> None:
    assert not hasattr(Event("info", "app", "x", left=1, since=0), "__dict__")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LogPipeline]]:
    made: list[LogPipeline] = []

    def begin(**settings: Any) -> LogPipeline:
        left_out: list[tuple[str, str, int]] = []
        pipeline = configure(
            settings=Settings(spool=tmp_path / "spool", **settings),
            service_name="taskapi",
            service_version="1",
            on_line=lambda _: None,
            on_drop=lambda *_: None,
            on_error=lambda _: None,
            on_left_out=lambda *told: left_out.append(told),
        )
        pipeline.told = left_out  # type: ignore[attr-defined] # for the test alone
        made.append(pipeline)
        return pipeline

    yield begin
    for pipeline in made:
        pipeline.close()


def lines(pipeline: LogPipeline) -> list[dict[str, Any]]:
    text = "".join(path.read_text() for path in sorted(pipeline.spool.folder.glob("*.seg")))
    return [json.loads(line) for line in text.splitlines()]


def test_what_was_suppressed_is_a_line_and_counted_by_level(
    start: Callable[..., LogPipeline],
) -> None:
    pipeline = start(log_rate=1, log_burst=4)
    for _ in range(50):
        get_logger("shop").error("card refused", order=1)
    for number in range(50):
        logging.getLogger("shop.pay").warning("attempt %d failed", number)
    pipeline.close()
    found = lines(pipeline)
    said = {
        (line["labels"]["suppressed_event"], line["log.level"]): line["labels"]["suppressed"]
        for line in found
        if line["message"] == "lines suppressed"
    }
    written = [line["message"] for line in found].count("card refused")
    assert said["card refused", "error"] == 50 - written
    assert 40 < said["attempt %d failed", "warning"] < 50
    told = pipeline.told  # type: ignore[attr-defined] # as above
    assert told.count(("rate_limit", "error", 1)) == 50 - written


def test_by_default_an_ordinary_service_is_never_held(start: Callable[..., LogPipeline]) -> None:
    pipeline = start()
    for number in range(20_000):
        get_logger("shop").info("paid", order=number)
    assert pipeline.told == []  # type: ignore[attr-defined] # as above
