"""Faults planted where lines are made: whoever logs notices none of them, and nothing else is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Callable, Iterator, MutableMapping
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import structlog

from taskscope.logs import LogPipeline, bound, configure, get_logger
from taskscope.settings import Settings
from taskscope.testing.logs import Line, read_lines


class Told:
    """What a pipeline told its owner."""

    def __init__(self) -> None:
        self.drops: list[tuple[str, str]] = []
        self.errors: list[str] = []


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def start(tmp_path: Path, told: Told) -> Iterator[Callable[[], LogPipeline]]:
    made: list[LogPipeline] = []

    def begin() -> LogPipeline:
        pipeline = configure(
            settings=Settings(spool=tmp_path / "spool", log_level="DEBUG"),
            service_name="taskapi",
            service_version="1",
            on_line=lambda _: None,
            on_drop=lambda *dropped: told.drops.append(dropped),
            on_error=lambda error: told.errors.append(f"{type(error).__name__}: {error}"),
        )
        made.append(pipeline)
        return pipeline

    yield begin
    for pipeline in made:
        pipeline.close()
    structlog.reset_defaults()


def lines(tmp_path: Path) -> list[Line]:
    return read_lines(tmp_path / "spool")


def add_tenant(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["tenant"] = "blue"
    return event


def fails(*_: object) -> Any:
    raise RuntimeError("planted")


def drops_health(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if event["event"] == "health":
        raise structlog.DropEvent
    return event


def rendered(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps({"event": event.pop("event"), **event})


def test_the_services_own_processors_are_kept_and_one_that_raises_is_passed_over(
    start: Callable[[], LogPipeline], tmp_path: Path, told: Told
) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(),
            add_tenant,
            fails,
            drops_health,
            rendered,
            structlog.processors.JSONRenderer(),
        ]
    )
    start()
    get_logger("ours").info("paid", order=7)
    structlog.get_logger("theirs").bind(shop=3).warning("paid", order=8)
    get_logger("ours").info("health")
    found = lines(tmp_path)
    assert [(line["log.logger"], line["labels"]) for line in found] == [
        ("ours", {"order": 7, "tenant": "blue"}),
        ("theirs", {"shop": 3, "order": 8, "tenant": "blue"}),
    ]
    assert told.errors == ["RuntimeError: planted"] * 3
    assert told.drops == []


def test_what_a_service_configures_later_leads_into_the_spool_all_the_same(
    start: Callable[[], LogPipeline], tmp_path: Path
) -> None:
    start()
    structlog.configure(
        processors=[add_tenant, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    structlog.get_logger("theirs").info("paid", order=8)
    get_logger("ours").info("paid", order=9)
    structlog.get_logger("theirs").debug("quiet")
    assert [line["labels"] for line in lines(tmp_path)] == [
        {"order": 8, "tenant": "blue"},
        {"order": 9, "tenant": "blue"},
    ]


def test_captured_events_are_captured(start: Callable[[], LogPipeline], tmp_path: Path) -> None:
    start()
    log = get_logger("a")
    log.info("before")
    with structlog.testing.capture_logs() as captured:
        log.info("within", a=1)
        structlog.get_logger("b").info("too")
    log.info("after")
    assert [each["event"] for each in captured] == ["within", "too"]
    assert [line["message"] for line in lines(tmp_path)] == ["before", "after"]


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("planted")

    __repr__ = __str__


class LogsItself:
    def __str__(self) -> str:
        get_logger("inner").info("asked for my text", value=self)
        return "done"


def nested() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    return [cycle, deep]


def test_values_that_fail_or_never_end_are_told_as_such(
    start: Callable[[], LogPipeline], tmp_path: Path, told: Told
) -> None:
    start()
    get_logger("a").info("value", value=Broken(), rest=1)
    get_logger("a").info(Broken())
    get_logger("a").info("%s", Broken())
    get_logger("a").info("values", values=nested())
    get_logger("a").info("%d and %d", 1)
    get_logger("a").info("last")
    found = lines(tmp_path)
    assert found[0]["labels"] == {"value": "[unreadable]", "rest": 1}
    assert [line["message"] for line in found[1:]] == [
        "[unreadable]",
        "%s [its arguments do not fit]",
        "values",
        "%d and %d [its arguments do not fit]",
        "last",
    ]
    assert told.drops == []


def test_a_value_that_logs_itself_comes_to_an_end(
    start: Callable[[], LogPipeline], tmp_path: Path, told: Told
) -> None:
    start()
    get_logger("a").info("begun", value=LogsItself())
    get_logger("a").info("last")
    found = [line["message"] for line in lines(tmp_path)]
    assert found[-2:] == ["begun", "last"]
    assert len(found) <= 10
    assert set(told.drops) <= {("encode_error", "info")}


def test_a_handler_that_stands_at_two_loggers_writes_one_line(
    start: Callable[[], LogPipeline], tmp_path: Path
) -> None:
    start()
    ours = logging.getLogger().handlers[-1]
    child = logging.getLogger("twice")
    child.addHandler(ours)
    logging.getLogger().addHandler(ours)
    try:
        child.warning("once")
    finally:
        child.removeHandler(ours)
    assert [line["message"] for line in lines(tmp_path)] == ["once"]


def test_a_record_can_still_be_sent_to_another_process(
    start: Callable[[], LogPipeline], tmp_path: Path
) -> None:
    start()
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(queue)  # type: ignore[arg-type] # it is put into, which is all that is needed
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("a").warning("sent", extra={"a": 1})
    finally:
        logging.getLogger().removeHandler(handler)
    assert pickle.loads(pickle.dumps(queue.get())).getMessage() == "sent"
    assert lines(tmp_path)[0]["labels"] == {"a": 1}


def test_every_method_of_structlogs_interface_leads_to_a_line(
    start: Callable[[], LogPipeline], tmp_path: Path
) -> None:
    start()
    log = get_logger("a").bind(a=1).new(b=2).bind(c=3).unbind("c").try_unbind("d")
    log.debug("1")
    log.info(event="2")
    log.msg("3")
    log.warn("4")
    log.fatal("5")
    log.log(logging.ERROR, "6 %s", "x", self="key")
    log.log(35, "7 %(k)s", {"k": "y"})
    log.info(None)
    log.info(event=None)
    try:
        {}["z"]
    except KeyError:
        log.exception("8")
        asyncio.run(log.aexception("9"))
    asyncio.run(log.ainfo("10"))
    asyncio.run(log.alog(logging.INFO, "11"))
    found = [line for line in lines(tmp_path) if line["log.logger"] == "a"]
    assert [line["message"] for line in found] == [
        *("1", "2", "3", "4", "5", "6 x", "7 y", "None", "None", "8", "9", "10", "11"),
    ]
    assert [line["log.level"] for line in found[:7]] == [
        *("debug", "info", "info", "warning", "critical", "error", "warning"),
    ]
    assert found[5]["labels"] == {"b": 2, "self": "key"}
    assert [line["error.type"] for line in found[9:11]] == ["builtins.KeyError"] * 2


def test_what_is_bound_to_the_context_is_in_the_line_unless_the_call_says_otherwise(
    start: Callable[[], LogPipeline], tmp_path: Path
) -> None:
    start()
    with structlog.contextvars.bound_contextvars(tenant="blue", order=1):
        get_logger("a").info("within", order=2)
    get_logger("a").info("after", order=3)
    assert [line["labels"] for line in lines(tmp_path)] == [
        {"order": 2, "tenant": "blue"},
        {"order": 3},
    ]


def test_a_logger_that_was_cached_outlives_its_pipeline(
    start: Callable[[], LogPipeline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start()
    theirs, ours = structlog.get_logger("theirs"), get_logger("ours")
    theirs.info("one")
    first.close()
    theirs.info("nobody's", a=1)
    ours.bind(b=2).info("nobody's too")
    assert "nobody's" in (printed := capsys.readouterr().out)
    assert "nobody's too" in printed
    start()
    theirs.info("two")
    ours.info("three")
    assert sorted(line["message"] for line in lines(tmp_path)) == ["one", "three", "two"]


def test_without_structlogs_private_names_it_asks_the_public_ones(
    start: Callable[[], LogPipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "_CONFIG", bound._Asked())
    monkeypatch.setattr(bound, "_BOUND", None)
    structlog.configure(processors=[add_tenant])
    start()
    with structlog.contextvars.bound_contextvars(order=1):
        get_logger("a").info("within")
        structlog.get_logger("b").info("within")
    assert [line["labels"] for line in lines(tmp_path)] == [{"order": 1, "tenant": "blue"}] * 2
