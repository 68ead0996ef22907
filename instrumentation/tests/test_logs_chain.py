"""One call sets up logging: every source leads into the spool, and none of it can fail its caller."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from taskscope.errors import SettingsError
from taskscope.logs import LogPipeline, configure, get_logger
from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.spool import Spool
from taskscope.logs.stdlib import StdlibRoute
from taskscope.settings import Settings

Configure = Callable[..., LogPipeline]


class Heard:
    """What the pipeline told its owner."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.drops: list[str] = []
        self.errors: list[BaseException] = []
        self.levels: list[str] = []

    def dropped(self, reason: str, level: str) -> None:
        self.drops.append(reason)
        self.levels.append(level)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def start(tmp_path: Path, heard: Heard) -> Iterator[Configure]:
    made: list[LogPipeline] = []

    def begin(**settings: object) -> LogPipeline:
        pipeline = configure(
            settings=Settings(spool=tmp_path / "spool", **settings),  # type: ignore[arg-type] # any setting
            service_name="taskapi",
            service_version="1",
            on_line=heard.lines.append,
            on_drop=heard.dropped,
            on_error=heard.errors.append,
        )
        made.append(pipeline)
        return pipeline

    yield begin
    for pipeline in made:
        pipeline.close()


def lines(pipeline: LogPipeline) -> list[dict[str, object]]:
    text = "".join(path.read_text() for path in sorted(pipeline.spool.folder.glob("*.seg")))
    return [json.loads(line) for line in text.splitlines()]


def messages(pipeline: LogPipeline) -> list[object]:
    return [line["message"] for line in lines(pipeline)]


def test_a_structlog_line_arrives_with_its_keys(start: Configure, heard: Heard) -> None:
    pipeline = start()
    get_logger("app.tasks").info("task created", task_id=7, password="abc")
    (line,) = lines(pipeline)
    assert line["message"] == "task created"
    assert line["log.logger"] == "app.tasks"
    assert line["labels"] == {"task_id": 7, "password": "[redacted]"}
    assert heard.lines == ["info"]


def test_a_logger_made_before_and_bound_leads_to_the_pipeline_of_the_moment(
    start: Configure,
) -> None:
    logger = get_logger("early")
    pipeline = start()
    logger.bind(a=1).warning("first")
    structlog.contextvars.bind_contextvars(b=2)
    logger.warning("second")
    structlog.contextvars.clear_contextvars()
    assert [line.get("labels") for line in lines(pipeline)] == [{"a": 1}, {"b": 2}]


def test_lines_below_the_level_are_not_written(start: Configure) -> None:
    pipeline = start(log_level="WARNING")
    get_logger("a").info("quiet")
    logging.getLogger("b").info("quiet")
    get_logger("a").warning("loud")
    logging.getLogger("b").warning("loud too")
    assert messages(pipeline) == ["loud", "loud too"]


def test_an_exception_is_logged_in_every_form(start: Configure) -> None:
    pipeline = start()
    try:
        {}["gone"]
    except LookupError as error:
        get_logger("a").exception("one")
        get_logger("a").error("two", exc_info=error)
        get_logger("a").error("three", exc_info=(type(error), error, None))
        logging.getLogger("a").exception("four")
    get_logger("a").error("none", exc_info=True)
    logging.getLogger("a").error("none", exc_info=True)
    assert [line.get("error.type") for line in lines(pipeline)] == ["builtins.KeyError"] * 4 + [
        None
    ] * 2


def test_the_standard_library_leads_into_the_same_chain(start: Configure) -> None:
    pipeline = start()
    logging.getLogger("lib").info("took %s ms", 3, extra={"task_id": 7, "api_key": "k"})
    (line,) = lines(pipeline)
    assert line["message"] == "took 3 ms"
    assert line["labels"] == {"task_id": 7, "api_key": "[redacted]"}


def test_a_record_whose_arguments_do_not_fit_is_logged_all_the_same(heard: Heard) -> None:
    events: list[object] = []
    route = StdlibRoute(lambda event, **_: events.append(event["event"]), level=logging.INFO)
    route.handle(logging.makeLogRecord({"msg": "%d and %d", "args": (1,), "levelno": 20}))
    assert events == ["%d and %d [its arguments do not fit]"]


def test_what_the_library_says_of_itself_is_a_line_a_minute_with_its_count() -> None:
    now = [0.0]
    events: list[tuple[object, object]] = []
    route = StdlibRoute(
        lambda event, **_: events.append((event["event"], event.get("times"))),
        level=logging.INFO,
        monotonic=lambda: now[0],
    )
    for _ in range(1000):
        for name in ("taskscope.metrics.instruments", "taskscope_shop"):
            said = {"name": name, "msg": "label %s is full", "args": ("user",), "levelno": 30}
            route.handle(logging.makeLogRecord(said))
    assert events.count(("label user is full", None)) == 1001
    now[0] = 60.0
    route.handle(logging.makeLogRecord({**said, "name": "taskscope.metrics.instruments"}))
    assert events[-1] == ("label user is full", 1000)


def test_warnings_lead_into_the_same_chain(start: Configure) -> None:
    pipeline = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old way", UserWarning, stacklevel=1)
    (line,) = lines(pipeline)
    assert line["log.logger"] == "py.warnings"
    assert "old way" in str(line["message"])


def test_uvicorns_lines_arrive_and_its_access_lines_do_not(start: Configure) -> None:
    pipeline = start()
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[1mStarted"})
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert messages(pipeline) == ["Started"]
    assert "labels" not in lines(pipeline)[0]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_after_two_pipelines_logging_is_as_the_service_had_it(
    start: Configure, first_ends_first: bool
) -> None:
    handlers = list(logging.getLogger().handlers)
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    before = structlog.get_config()
    try:
        pipelines = [start(), start()]
        for pipeline in pipelines if first_ends_first else reversed(pipelines):
            pipeline.close()
        assert structlog.get_config() == before
        assert logging.getLogger().handlers == handlers
    finally:
        structlog.reset_defaults()


def test_a_line_after_the_end_names_the_reason(
    start: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = start()
    pipeline.close()
    pipeline.emit({"event": "late"}, level="info", logger="a")
    assert "is closed; log before" in capsys.readouterr().err


def test_a_server_that_sets_up_logging_later_is_adopted_again(start: Configure) -> None:
    pipeline = start()
    logging.getLogger("uvicorn").propagate = False
    logging.getLogger("uvicorn.access").propagate = True
    pipeline.adopt()
    pipeline.adopt()
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert messages(pipeline) == ["Started"]


@pytest.mark.parametrize(
    "name",
    ["elastic_transport.transport", "urllib3.connectionpool", "elasticsearch", "opentelemetry.sdk"],
)
def test_what_ships_lines_makes_no_lines_of_its_steps(start: Configure, name: str) -> None:
    pipeline = start(log_level="DEBUG")
    logging.getLogger(name).debug("step")
    logging.getLogger(name).info("step")
    logging.getLogger(name).warning("fault")
    assert messages(pipeline) == ["fault"]


def test_a_malformed_baggage_header_is_not_logged(start: Configure) -> None:
    pipeline = start()
    logging.getLogger("opentelemetry.baggage.propagation").warning("whole header")
    assert messages(pipeline) == []


def test_closing_leaves_logging_as_it_was(start: Configure) -> None:
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    before = (list(root.handlers), root.level, access.propagate, list(access.handlers))
    start().close()
    assert (list(root.handlers), root.level, access.propagate, list(access.handlers)) == before
    assert not structlog.is_configured()


def test_closing_the_first_of_two_leaves_the_second(start: Configure) -> None:
    first, second = start(), start()
    first.close()
    get_logger("a").info("kept")
    assert "kept" in messages(second)


def test_lines_are_printed_as_well_when_asked(
    start: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    start(log_stderr=True)
    get_logger("a").info("seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path, start: Configure) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(SettingsError, match="set TASKSCOPE_SPOOL"):
        start()
    assert not structlog.is_configured()


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def complaints() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def small(
    tmp_path: Path, heard: Heard, clock: _Clock, complaints: io.StringIO
) -> Iterator[LogPipeline]:
    pipeline = LogPipeline(
        encoder=EcsEncoder(
            service_name="s", service_version="1", environment="e", instance="i", now=lambda: 0
        ),
        spool=Spool(tmp_path / "small", max_bytes=65_536, segment_bytes=65_536, sync_s=None),
        on_line=heard.lines.append,
        on_drop=heard.dropped,
        on_error=heard.errors.append,
        complaints=complaints,
        monotonic=clock,
    )
    yield pipeline
    pipeline.close()


def test_what_is_dropped_is_counted_and_said_once_a_minute(
    small: LogPipeline, heard: Heard, clock: _Clock, complaints: io.StringIO
) -> None:
    while not heard.drops:
        small.emit({"event": "x" * 1000}, level="info", logger="a")
    for _ in range(9):
        small.emit({"event": "x" * 1000}, level="info", logger="a")
    assert heard.drops == ["spool_full"] * 10
    assert complaints.getvalue().count("\n") == 1
    assert "start the shipper or raise TASKSCOPE_SPOOL_MAX_BYTES" in complaints.getvalue()
    clock.now = 61.0
    small.emit({"event": "x" * 1000}, level="info", logger="a")
    assert complaints.getvalue().count("\n") == 2
    assert "10 log line(s) dropped" in complaints.getvalue().splitlines()[1]


def test_an_event_that_cannot_be_encoded_is_counted_and_told(
    small: LogPipeline, heard: Heard
) -> None:
    class Broken(dict[str, object]):
        def items(self):  # type: ignore[no-untyped-def,override] # it only raises
            raise RuntimeError("planted")

    small.emit(Broken(), level="info", logger="a")
    assert heard.drops == ["encode_error"]
    assert [str(error) for error in heard.errors] == ["planted"]


def test_a_pipeline_that_is_closed_drops_and_counts(small: LogPipeline, heard: Heard) -> None:
    small.close()
    small.emit({"event": "late"}, level="error", logger="a")
    assert (heard.drops, heard.levels) == (["write_error"], ["error"])


def test_a_counter_that_fails_never_fails_the_caller(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    pipeline = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="s",
        service_version="1",
        on_line=fail,
        on_drop=fail,
        on_error=fail,
    )
    get_logger("a").info("kept")
    pipeline.close()
    assert messages(pipeline) == ["kept"]
