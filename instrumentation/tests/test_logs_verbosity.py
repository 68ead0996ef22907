"""How much is logged, changed while the service runs: by whom, for how long, and by all workers alike."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskscope import Settings, get_logger, instrument
from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.errors import SettingsError
from taskscope.logs import LogPipeline, configure
from taskscope.logs.change import Change, read, write
from taskscope.logs.sampling import AccessSample
from taskscope.logs.verbosity import State, Verbosity
from taskscope.testing.logs import read_lines

TOKEN = "an-admin-token-of-chars"


class Clocks:
    """Time of the wall and of the steady clock, set apart."""

    def __init__(self) -> None:
        self.wall = 1_764_000_000.0
        self.steady = 50.0


class Worker:
    """One worker's verbosity, and what it was made to do."""

    def __init__(self, folder: Path, clocks: Clocks) -> None:
        self.applied: list[tuple[str, float]] = []
        self.told: list[tuple[State, float | None]] = []
        self.verbosity = Verbosity(
            folder,
            level="INFO",
            sample=0.1,
            apply=lambda level, sample: self.applied.append((level, sample)),
            tell=lambda state, for_s: self.told.append((state, for_s)),
            now=lambda: clocks.wall,
            monotonic=lambda: clocks.steady,
        )


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def workers(tmp_path: Path, clocks: Clocks) -> list[Worker]:
    return [Worker(tmp_path, clocks) for _ in range(3)]


def test_what_one_worker_was_asked_for_all_follow_and_it_ends(
    workers: list[Worker], clocks: Clocks
) -> None:
    workers[0].verbosity.ask(level="debug", sample=1.0, for_s=60, by="somebody")
    for worker in workers:
        worker.verbosity.look()
        worker.verbosity.look()
        assert worker.applied == [("DEBUG", 1.0)]
        assert worker.verbosity.state() == State(
            level="DEBUG", sample=1.0, seconds_left=60.0, by="somebody"
        )
    clocks.steady += 60
    for worker in workers:
        worker.verbosity.look()
        assert worker.applied[1:] == [("INFO", 0.1)]
        assert worker.verbosity.state() == State(level="INFO", sample=0.1)
        assert [for_s for _, for_s in worker.told] == [60, None]


def test_it_is_taken_back_before_its_time(workers: list[Worker]) -> None:
    workers[0].verbosity.ask(level="ERROR", by="somebody")
    workers[1].verbosity.look()
    workers[1].verbosity.back(by="another")
    for worker in workers:
        worker.verbosity.look()
    assert workers[0].applied == workers[1].applied == [("ERROR", 0.1), ("INFO", 0.1)]
    assert workers[2].applied == []


def test_a_toggle_is_debug_and_the_next_one_the_settings(workers: list[Worker]) -> None:
    workers[0].verbosity.toggled(by="signal")
    assert workers[0].verbosity.state().seconds_left == 600.0
    workers[1].verbosity.look()
    workers[1].verbosity.toggled(by="signal")
    workers[0].verbosity.look()
    assert workers[0].applied == [("DEBUG", 1.0), ("INFO", 0.1)]


def test_a_worker_that_starts_later_has_what_is_left(
    workers: list[Worker], clocks: Clocks, tmp_path: Path
) -> None:
    workers[0].verbosity.ask(level="DEBUG", for_s=60, by="somebody")
    clocks.wall += 45
    late = Worker(tmp_path, clocks)
    late.verbosity.look()
    assert late.verbosity.state().seconds_left == 15.0
    clocks.wall += 3600
    later = Worker(tmp_path, clocks)
    later.verbosity.look()
    assert later.applied == []


def test_a_clock_that_is_set_back_does_not_make_it_last(
    workers: list[Worker], clocks: Clocks
) -> None:
    workers[0].verbosity.ask(level="DEBUG", for_s=60, by="somebody")
    clocks.wall -= 10 * 365 * 86_400
    clocks.steady += 60
    workers[0].verbosity.look()
    assert workers[0].verbosity.state().level == "INFO"
    workers[1].verbosity.look()
    assert workers[1].verbosity.state().seconds_left == 86_400.0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"level": "LOUD"}, "level: 'LOUD' is none; take one of DEBUG"),
        ({"sample": 1.5}, "sample: 1.5 is no share"),
        ({"sample": float("nan")}, "sample: nan is no share"),
        ({"for_s": 0}, "for_s: 0 is too long or no time"),
        ({"for_s": 1e9}, "take at most 86400 seconds"),
        ({"for_s": float("nan")}, "for_s: nan"),
    ],
)
def test_what_cannot_hold_is_refused_in_one_sentence(
    workers: list[Worker], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        workers[0].verbosity.ask(by="somebody", **wrong)
    assert workers[0].applied == []


def test_a_file_that_we_would_not_have_written_is_none(tmp_path: Path) -> None:
    file = tmp_path / "logging.json"
    good = Change(level="DEBUG", sample=1.0, until=1.0, by="x")
    write(tmp_path, good)
    assert read(tmp_path) == good
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for text in ("", "{", '{"level":"LOUD","sample":1,"until":1,"by":""}', "[]", "x" * 5000):
        file.write_text(text)
        assert read(tmp_path) is None
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(b'{"level":"DEBUG","sample":1,"until":1,"by":""}')
    file.symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path) is None
    file.unlink()
    os.mkfifo(file)
    assert read(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_one_sentence(clocks: Clocks, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "gone", clocks)
    with pytest.raises(SettingsError, match="free it, the level stays as it is"):
        worker.verbosity.ask(level="DEBUG", by="somebody")
    assert worker.applied == []


# The sample of access lines.


def ended(outcome: str = "ok", seconds: float = 0.01) -> Ended:
    return Ended(200, outcome, seconds, None, 0)


def request(*, sampled: bool = False) -> RequestContext:
    return RequestContext(request_id="a" * 32, method="GET", path="/", sampled=sampled)


def test_trouble_is_always_kept_and_weighs_one() -> None:
    sample = AccessSample(share=0.0, slow_s=1.0, chance=lambda: 0.999)
    for kept, how in (
        (request(), ended("server_error")),
        (request(), ended("client_error")),
        (request(), ended("timeout")),
        (request(), ended("ok", 1.5)),
        (request(sampled=True), ended()),
    ):
        assert sample.keeps(kept, how)
        assert sample.weight(kept, how) == 1.0
    assert not sample.keeps(request(), ended())


def test_weights_give_back_the_count() -> None:
    numbers = iter(range(10_000))
    sample = AccessSample(share=0.1, slow_s=1.0, chance=lambda: next(numbers) % 100 / 100)
    requests = [request(sampled=number % 50 == 0) for number in range(10_000)]
    kept = [each for each in requests if sample.keeps(each, ended())]
    assert 1000 < len(kept) < 1300
    assert sum(sample.weight(each, ended()) for each in kept) == pytest.approx(10_000, rel=0.02)
    assert sample.weighed(request(), 0.01) == ',"sample.weight":10.0'
    assert sample.weighed(request(sampled=True), 0.01) == ""


def test_all_are_kept_unless_a_share_is_set() -> None:
    sample = AccessSample(share=1.0, chance=lambda: 0.999)
    assert sample.keeps(request(), ended())
    sample.take(0.5)
    assert not sample.keeps(request(), ended())


# One pipeline, and the port.


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[LogPipeline]:
    made = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="taskapi",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    yield made
    made.close()


def said(pipeline: LogPipeline) -> list[Any]:
    return [line["message"] for line in read_lines(pipeline.spool.folder)]


def test_all_sources_follow_the_level_and_the_change_is_a_line(pipeline: LogPipeline) -> None:
    assert pipeline.upkeep is not None
    logger, standard = get_logger("a"), logging.getLogger("b")
    logger.debug("no")
    standard.debug("no")
    pipeline.upkeep.verbosity.ask(level="DEBUG", by="somebody")
    logger.debug("one")
    standard.debug("two")
    pipeline.upkeep.verbosity.ask(level="ERROR", by="somebody")
    logger.warning("no")
    standard.warning("no")
    assert logger.is_enabled_for(logging.ERROR)
    assert not logger.is_enabled_for(logging.WARNING)
    pipeline.upkeep.verbosity.back(by="somebody")
    logger.info("three")
    standard.info("four")
    logger.debug("no")
    assert said(pipeline) == [
        "logging changed",
        "one",
        "two",
        "logging changed",
        "logging is as it is set again",
        "three",
        "four",
    ]
    first = read_lines(pipeline.spool.folder)[0]
    assert first["labels"]["least_level"] == "DEBUG"
    assert first["labels"]["asked_by"] == "somebody"


def test_closing_in_the_midst_of_a_change_leaves_logging_as_it_was(tmp_path: Path) -> None:
    before = logging.getLogger().level
    made = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="taskapi",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    assert made.upkeep is not None
    made.upkeep.verbosity.ask(level="DEBUG", by="somebody")
    made.close()
    assert logging.getLogger().level == before


class Port:
    """The admin port of a service that runs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/logging"

    def __call__(
        self, method: str, body: bytes | None = None, token: str = TOKEN
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        asked = Request(self._url, data=body, method=method, headers=headers)
        try:
            with urlopen(asked, timeout=5) as response:
                return response.status, json.loads(response.read())
        except HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    app = FastAPI()
    settings = Settings(spool=tmp_path / "spool", metrics_port=0, admin_token=TOKEN)
    telemetry = instrument(
        app, service_name="shop", service_version="1", settings=settings, tracing=False
    )
    with TestClient(app):
        assert telemetry._admin is not None
        assert telemetry._admin.port is not None
        yield Port(telemetry._admin.port)


def test_the_port_tells_changes_and_takes_back(port: Port) -> None:
    settings = {"level": "INFO", "sample": 1.0, "seconds_left": None, "by": ""}
    assert port("GET") == (200, settings)
    status, state = port("PUT", b'{"level":"debug","sample":0.5,"for_s":60}')
    assert (status, state["level"], state["sample"], state["by"]) == (
        200,
        "DEBUG",
        0.5,
        "admin port",
    )
    assert 0 < port("GET")[1]["seconds_left"] <= 60
    get_logger("shop").debug("heard")
    assert port("DELETE") == (200, settings)


def test_who_has_no_token_learns_and_changes_nothing(port: Port) -> None:
    refused = (401, "present the token of TASKSCOPE_ADMIN_TOKEN as a bearer token\n")
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "ä" * 20):
        for method in ("GET", "PUT", "DELETE"):
            assert port(method, b'{"level":"DEBUG"}', token=token) == refused
    assert port("GET")[1]["level"] == "INFO"


NO_CHANGES = {
    b"": 422,
    b"{": 422,
    b"{}": 422,
    b'{"level":7}': 422,
    b'{"level":"LOUD"}': 422,
    b'{"sample":2}': 422,
    b'{"level":"DEBUG","for_s":1e12}': 422,
    b'{"level":"DEBUG","other":1}': 422,
    b"[" * 4000: 422,
    b" " * 5000 + b'{"level":"DEBUG"}': 413,
    b'{"level":"\xff"}': 422,
}


def test_what_is_no_change_is_refused(port: Port) -> None:
    assert {body: port("PUT", body)[0] for body in NO_CHANGES} == NO_CHANGES
    assert port("GET")[1]["level"] == "INFO"


def test_without_a_token_nobody_can_change_anything(tmp_path: Path) -> None:
    app = FastAPI()
    settings = Settings(spool=tmp_path / "spool", metrics_port=0)
    telemetry = instrument(
        app, service_name="shop", service_version="1", settings=settings, tracing=False
    )
    with TestClient(app):
        assert telemetry._admin is not None
        status, text = Port(telemetry._admin.port or 0)("PUT", b'{"level":"DEBUG"}')
    assert status == 403
    assert "set TASKSCOPE_ADMIN_TOKEN" in text
