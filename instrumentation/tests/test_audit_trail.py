"""What an audit line holds, and that to record one never fails a request, unless the service wants it to."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient

from taskscope import Settings, instrument, set_user
from taskscope.audit import load_audit_key, read_heads, verify
from taskscope.audit.run import Run
from taskscope.catalogue.builtin import AUDIT_FAILED, AUDIT_LINES
from taskscope.context import RequestContext, current_request
from taskscope.errors import AuditError
from taskscope.logs.durable import Segment
from taskscope.logs.looking import newest_first
from taskscope.testing.metrics import moved

from .audit_worlds import checked, die, trail, written


def last(spool: Path) -> dict[str, Any]:
    return dict(written(spool)[-1].document)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Any]:
    made = trail(tmp_path)
    yield made
    made.close()


def test_a_line_bears_the_schemas_words_and_the_request_it_belongs_to(
    audit: Any, tmp_path: Path
) -> None:
    request = RequestContext(
        request_id="a" * 32,
        method="POST",
        path="/login",
        client_address="192.0.2.7",
        route="/login",
        trace_id="b" * 32,
        span_id="c" * 16,
    )
    token = current_request.set(request)
    try:
        assert audit.record(
            "user.login", outcome="failure", user="u-1", target="door", reason="bad", attempt=2
        )
    finally:
        current_request.reset(token)
    line = last(tmp_path)
    expected = {
        "event.kind": "event",
        "event.category": ["authentication"],
        "event.type": ["start"],
        "event.action": "user.login",
        "event.outcome": "failure",
        "event.reason": "bad",
        "client.address": "192.0.2.7",
        "http.request.id": "a" * 32,
        "http.route": "/login",
        "trace.id": "b" * 32,
        "span.id": "c" * 16,
        "log.level": "warning",
        "log.logger": "taskscope.audit",
        "labels": {"attempt": 2, "target": "door"},
    }
    assert {name: line[name] for name in expected} == expected
    assert len(line["user.hash"]) == 32
    assert "u-1" not in str(line)


def test_the_trails_own_lines_belong_to_no_request(audit: Any, tmp_path: Path) -> None:
    token = current_request.set(RequestContext(request_id="a" * 32, method="GET", path="/"))
    try:
        assert audit.record("user.login")
    finally:
        current_request.reset(token)
    first, second = written(tmp_path)
    assert "http.request.id" not in first.document
    assert "http.request.id" in second.document


def test_an_action_of_the_services_own_may_say_what_it_is(audit: Any, tmp_path: Path) -> None:
    assert audit.record("invoice.paid", category="database", types=("change",))
    assert (last(tmp_path)["event.category"], last(tmp_path)["event.type"]) == (
        ["database"],
        ["change"],
    )


def test_secrets_are_hidden_and_nothing_in_a_call_forges_a_place(
    audit: Any, tmp_path: Path
) -> None:
    forged = {"audit.hash": "0" * 64, "audit.sequence": 99, "event.action": "x", "event": "y"}
    assert audit.record("user.login", target="ann@example.com", password="hunter2", **forged)
    raw = next(newest_first(tmp_path / "audit", since=0)).raw
    assert b"hunter2" not in raw
    assert b"ann@example.com" not in raw
    line = last(tmp_path)
    assert (line["audit.sequence"], line["event.action"]) == (1, "user.login")
    assert checked(tmp_path).intact


def test_a_line_that_is_too_long_keeps_who_and_what(audit: Any, tmp_path: Path) -> None:
    rows = {f"row{n}": "x" * 2000 for n in range(40)}
    assert audit.record("a" * 9000, user="u-1", **rows)
    line = last(tmp_path)
    assert line["event.action"] == "a" * 200
    assert line["user.hash"]
    assert line["labels"]["truncated"]
    assert checked(tmp_path).intact


def test_what_cannot_be_stored_is_counted_and_told_and_raises_only_where_that_is_asked(
    tmp_path: Path,
) -> None:
    (tmp_path / "audit").write_text("no folder")
    failed: list[str] = []
    errors: list[BaseException] = []
    said = io.StringIO()
    audit = trail(tmp_path, on_fail=failed.append, on_error=errors.append, complaints=said)
    assert audit.record("user.login") is False
    with pytest.raises(
        AuditError, match=r"audit user\.login: the line is not stored \(write_error"
    ):
        audit.record("user.login", required=True)
    assert (failed, len(errors)) == (["write_error"] * 2, 2)
    assert said.getvalue().count("\n") == 1
    assert "audit line(s) not stored" in said.getvalue()
    (tmp_path / "audit").unlink()
    assert audit.record("user.login", required=True)
    audit.close()
    assert checked(tmp_path).intact


def test_a_value_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    failed: list[str] = []
    audit = trail(tmp_path, on_fail=failed.append, identity=lambda: 1 / 0)
    assert audit.record("user.login", user="u") is False
    audit.close()
    assert failed == ["encode_error"]


def test_audit_lines_have_room_of_their_own(tmp_path: Path) -> None:
    failed: list[str] = []
    audit = trail(tmp_path, max_bytes=16_384, on_fail=failed.append)
    stored = sum(audit.record("user.login") for _ in range(40))
    audit.close()
    assert 5 < stored < 40
    assert set(failed) == {"spool_full"}
    report = checked(tmp_path)
    assert (report.breaks, report.lines) == ((), stored + 1)  # there was no room to say goodbye


def test_a_durable_line_is_on_disk_before_the_call_returns(audit: Any, tmp_path: Path) -> None:
    assert audit.record("user.login")
    spool = audit._spool
    segment: Segment = spool._segment
    assert audit.record("user.login", durable=True)
    assert segment.synced == segment.end == (tmp_path / "audit" / segment.name).stat().st_size


def test_a_line_that_cannot_be_brought_to_disk_is_there_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    audit = trail(tmp_path, on_fail=failed.append)
    assert audit.record("user.login")
    monkeypatch.setattr(audit._spool, "sync", lambda: False)
    with pytest.raises(AuditError, match="not_synced"):
        audit.record("user.logout", durable=True, required=True)
    monkeypatch.undo()
    audit.close()
    assert failed == ["not_synced"]
    assert [line.document["event.action"] for line in written(tmp_path)][2] == "user.logout"


@pytest.mark.anyio
async def test_a_coroutine_waits_elsewhere(tmp_path: Path) -> None:
    audit = trail(tmp_path)
    assert await audit.arecord("user.login", durable=True, required=True)
    audit.close()
    with pytest.raises(AuditError):
        await audit.arecord("user.login", required=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_after_its_end_nothing_is_stored_and_a_new_start_is_a_new_run(tmp_path: Path) -> None:
    audit = trail(tmp_path)
    assert audit.record("user.login")
    audit.close()
    assert audit.record("user.login") is False
    audit.reopen()
    assert audit.record("user.login")
    audit.close()
    assert checked(tmp_path).intact
    assert checked(tmp_path).chains == 2


def test_a_run_lasts_a_day(tmp_path: Path) -> None:
    clock = [0.0]
    audit = trail(tmp_path, monotonic=lambda: clock[0])
    for _ in range(3):
        assert audit.record("user.login")
        clock[0] += 60_000.0
    audit.close()
    report = checked(tmp_path)
    assert (report.intact, report.chains, report.open) == (True, 2, ())


def test_a_handler_of_a_signal_tears_no_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    audit = trail(tmp_path, on_fail=failed.append)
    assert audit.record("user.login")
    append, before = Run.append, signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda *_: audit.record("from.the.handler"))

    def interrupted(self: Run, document: dict[str, object]) -> object:
        os.kill(os.getpid(), signal.SIGUSR1)
        return append(self, document)

    monkeypatch.setattr(Run, "append", interrupted)
    try:
        assert audit.record("user.logout")
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGUSR1, before)
    audit.close()
    assert failed == ["write_error"]
    assert checked(tmp_path).intact


def test_an_interrupt_between_a_line_and_its_number_begins_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = trail(tmp_path)
    assert audit.record("user.login")
    append = Run.append

    def torn(self: Run, document: dict[str, object]) -> object:
        sequence, previous = self._sequence, self._previous
        append(self, document)
        self._sequence, self._previous = sequence, previous
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append", torn)
    with pytest.raises(KeyboardInterrupt):
        audit.record("user.logout")
    monkeypatch.undo()
    assert audit.record("user.login")
    audit.close()
    report = checked(tmp_path)
    assert (report.breaks, report.chains, report.lines) == ((), 2, 6)


def test_a_head_that_is_one_line_behind_breaks_nothing(tmp_path: Path) -> None:
    audit = trail(tmp_path)
    assert audit.record("user.login")
    (head,) = (tmp_path / "audit").glob("*.head")
    behind = head.read_bytes()
    assert audit.record("user.logout")
    head.write_bytes(behind)
    die(audit)
    after = trail(tmp_path)
    assert after.record("user.login")
    after.close()
    assert checked(tmp_path).breaks == ()


def test_a_run_that_died_before_its_first_line_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step of a run's beginning: what is claimed is not claimed again."""
    from taskscope.audit import run as runs

    for step in ("HeadFile", "forget"):
        first = trail(tmp_path)
        assert first.record("user.login")
        first.close()
        whole = getattr(runs, step)

        def dies(*args: Any, whole: Any = whole, step: str = step, **how: Any) -> Any:
            if step == "HeadFile":
                whole(*args, **how).let_go()
            raise KeyboardInterrupt

        monkeypatch.setattr(runs, step, dies)
        second = trail(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            second.record("user.login")
        monkeypatch.undo()
        second.close()
        third = trail(tmp_path)
        assert third.record("user.login")
        third.close()
    report = checked(tmp_path)
    assert report.breaks == ()
    assert len(list((tmp_path / "audit").glob("*.head"))) <= 2


def test_files_and_folder_are_for_their_user_alone(audit: Any, tmp_path: Path) -> None:
    own = trail(tmp_path, key=None)
    assert own.record("user.login")
    own.close()
    folder = tmp_path / "audit"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    load_audit_key(folder)


def shop(spool: Path) -> FastAPI:
    app = FastAPI()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        tracing=False,
        settings=Settings(spool=spool),
    )

    @app.post("/login/{user}")
    def login(user: str) -> bool:
        set_user(user)
        return telemetry.audit.record("user.login", token="s3cr3t")

    @app.post("/pay")
    def pay() -> str:
        try:
            telemetry.audit.record("invoice.paid", required=True)
        except AuditError as error:
            raise HTTPException(503) from error
        return "paid"

    return app


def test_a_service_records_and_its_series_tell(tmp_path: Path) -> None:
    app = shop(tmp_path)
    registry = app.state.telemetry.registry
    with TestClient(app) as client, moved(registry, AUDIT_LINES, by=1):
        assert client.post("/login/ann").json() is True
        app.state.telemetry.audit.folder.joinpath("x").touch()
    lines = written(tmp_path)
    assert [line.document["event.action"] for line in lines] == [
        "audit.run.opened",
        "user.login",
        "audit.run.closed",
    ]
    access = next(
        msgspec.json.decode(seen.raw)
        for seen in newest_first(tmp_path, since=0)
        if b"http.response.status_code" in seen.raw
    )
    for name in ("http.request.id", "user.hash", "client.address"):
        assert lines[1].document[name] == access[name]
    folder = tmp_path / "audit"
    assert verify(lines, [load_audit_key(folder)], heads=read_heads(folder)).intact


def test_a_service_refuses_what_would_leave_no_trace(tmp_path: Path) -> None:
    app = shop(tmp_path)
    (tmp_path / "audit").write_text("no folder")
    registry = app.state.telemetry.registry
    with TestClient(app) as client, moved(registry, AUDIT_FAILED, by=2):
        assert client.post("/login/ann").json() is False
        assert client.post("/pay").status_code == 503


def test_a_change_of_the_log_level_is_recorded(tmp_path: Path) -> None:
    app = shop(tmp_path)
    with TestClient(app):
        verbosity = app.state.telemetry._logs.upkeep.verbosity
        verbosity.ask(level="debug", for_s=60, by="admin port")
        verbosity.back(by="admin port")
    changes = [
        (line.document["event.category"], line.document["labels"]["level"])
        for line in written(tmp_path)
        if line.document["event.action"] == "logging.changed"
    ]
    assert changes == [(["configuration"], "DEBUG"), (["configuration"], "INFO")]


def test_where_logs_are_switched_off_the_trail_goes_on(tmp_path: Path) -> None:
    app = FastAPI()
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1",
        tracing=False,
        logs=False,
        settings=Settings(spool=tmp_path),
    )
    assert telemetry.audit.record("user.login", user="u-1")
    telemetry.close()
    assert len(str(written(tmp_path)[1].document["user.hash"])) == 32
