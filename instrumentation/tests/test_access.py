"""The access line, made straight to bytes, is the line that the chain would make of the same request."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from taskscope.catalogue.builtin import OUTCOMES
from taskscope.context import RequestContext, current_request
from taskscope.ended import Ended
from taskscope.logs import LogPipeline, configure
from taskscope.logs.access import MOST_KEPT, AccessLines
from taskscope.logs.ecs import FIELD_BYTES, LINE_BYTES, EcsEncoder
from taskscope.logs.sampling import AccessSample
from taskscope.logs.spool import Spool

NOW = 1_764_000_000_123_456_789


class _InMemory(LogPipeline):
    raw: list[bytes]
    direct = False

    def put(self, line: bytes, level: str) -> None:
        self.raw.append(line)
        self._tell(self._on_line, level)


class Kept:
    """A pipeline whose lines stay in a list, and what it told."""

    def __init__(self, folder: Path, *, redact: bool = True, instance: str = "one") -> None:
        self.raw: list[bytes] = []
        self.levels: list[str] = []
        self.drops: list[str] = []
        self.errors: list[BaseException] = []
        self.spool = Spool(folder, max_bytes=1 << 20, segment_bytes=1 << 16, sync_s=None)
        self.encoder = EcsEncoder(
            service_name="shop",
            service_version="2.1",
            environment="test",
            instance=instance,
            redact=redact,
            now=lambda: NOW,
        )
        self.pipeline = _InMemory(
            encoder=self.encoder,
            spool=self.spool,
            on_line=self.levels.append,
            on_drop=lambda reason, _: self.drops.append(reason),
            on_error=self.errors.append,
        )
        self.pipeline.raw = self.raw
        self.access = AccessLines(self.pipeline)

    def line(self, request: RequestContext, ended: Ended) -> dict[str, Any]:
        self.raw.clear()
        token = current_request.set(request)
        try:
            self.access.write(request, ended)
        finally:
            current_request.reset(token)
        (raw,) = self.raw
        assert raw.endswith(b"}\n")
        assert raw.count(b"\n") == 1
        assert len(raw) <= LINE_BYTES
        found = json.loads(raw)
        assert isinstance(found, dict)
        return found

    def slow(self, request: RequestContext, ended: Ended) -> dict[str, Any]:
        """What the encoder makes of the event that stands for the same request."""
        event: dict[str, object] = {
            "event": "request served",
            "http.request.method": request.method,
            "http.response.status_code": ended.status,
            "http.route": request.route or "unmatched",
            "http.response.body.bytes": ended.body_bytes,
            "url.path": request.path,
            "client.address": request.client_address,
            "event.duration": int(ended.seconds * 1e9),
            "event.outcome": "success" if ended.outcome in ("ok", "client_error") else "failure",
            "outcome": ended.outcome,
        }
        failed = ended.outcome in ("server_error", "timeout")
        given = {key: value for key, value in event.items() if value is not None}
        token = current_request.set(request)
        try:
            line = self.encoder.line(
                given, level="error" if failed else "info", logger="taskscope.access"
            )
        finally:
            current_request.reset(token)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    made = Kept(tmp_path_factory.mktemp("access") / "spool")
    yield made
    made.pipeline.close()


def asked(**fields: Any) -> RequestContext:
    known = {"request_id": "a" * 32, "method": "GET", "path": "/pay/7", "route": "/pay/{order}"}
    return RequestContext(**{**known, **fields})


def done(outcome: str = "ok", **fields: Any) -> Ended:
    known = {"status": 200, "seconds": 0.0125, "failure": None, "body_bytes": 3, **fields}
    return Ended(outcome=outcome, **known)


_HEX = st.text("0123456789abcdef", min_size=16, max_size=16)
_TEXT = st.one_of(
    st.text(st.characters(), max_size=40),
    st.from_regex(r"/(token=|bearer |4[0-9 -]{14,18}|[a-z]{1,9}/)[\x00-\x7f\u2028\u2029]{0,30}"),
    st.builds(str.__mul__, st.text(st.characters(), min_size=1, max_size=4), st.integers(1, 4000)),
)
_REQUESTS = st.builds(
    RequestContext,
    request_id=_HEX,
    method=_TEXT | st.sampled_from(["GET", "POST", "_OTHER"]),
    path=_TEXT,
    route=st.none() | _TEXT | st.sampled_from(["unmatched", "/pay/{order}"]),
    client_request_id=st.none() | _TEXT,
    client_address=st.none() | _TEXT | st.ip_addresses().map(str),
    trace_id=st.none() | _HEX,
    span_id=st.none() | _HEX,
    user=st.none() | _HEX,
)
_ENDS = st.builds(
    Ended,
    status=st.integers(100, 599),
    outcome=st.sampled_from(OUTCOMES),
    seconds=st.floats(0, 1e9),
    failure=st.none(),
    body_bytes=st.integers(0, 2**62),
)


@how(deadline=None, max_examples=250)
@given(_REQUESTS, _ENDS)
def test_any_request_has_the_line_that_the_chain_would_make(
    kept: Kept, request: RequestContext, ended: Ended
) -> None:
    assert kept.line(request, ended) == kept.slow(request, ended)


@how(deadline=None, max_examples=250)
@given(_REQUESTS, _ENDS)
def test_a_request_that_went_well_has_that_line_at_less_cost(
    kept: Kept, request: RequestContext, ended: Ended
) -> None:
    ended.outcome = "ok"
    request.client_request_id = None  # of whoever sent one, `write` tells
    text = kept.access.text_of(request.method, request.route or "unmatched", ended.status)
    scope = {
        "path": request.path,
        "client": None if request.client_address is None else (request.client_address, 4000),
        "headers": [],
    }
    kept.raw.clear()
    told = text and kept.access.served(
        request, request.request_id.encode(), scope, text, ended.seconds, ended.body_bytes
    )
    assert [json.loads(raw) for raw in kept.raw] == [kept.slow(request, ended)] * bool(told)
    texts = (request.path, request.method, request.route, request.client_address)
    if max(len(each or "") for each in texts) < 50:
        assert told


def test_of_whoever_sent_an_id_or_bound_a_value_the_whole_line_is_asked(kept: Kept) -> None:
    text = kept.access.text_of("GET", "/", 200)
    scope: dict[str, Any] = {"path": "/", "client": None, "headers": []}
    sent = {**scope, "headers": [(b"host", b"a"), (b"x-request-id", b"b")]}
    assert kept.access.served(None, b"a", scope, text, 0.1, 2)
    assert not kept.access.served(None, b"a", sent, text, 0.1, 2)
    with structlog.contextvars.bound_contextvars(shop=7):
        assert not kept.access.served(None, b"a", scope, text, 0.1, 2)


def test_a_share_of_good_requests_is_told_with_its_weight(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "s")
    chances = iter([0.3, 0.1, 0.24, 0.9])
    left_out: list[tuple[str, str, int]] = []
    kept.pipeline._on_left_out = lambda *told: left_out.append(told)
    kept.pipeline.sample = AccessSample(share=0.25, slow_s=1.0, chance=lambda: next(chances))
    text = kept.access.text_of("GET", "/", 200)
    scope: dict[str, Any] = {"path": "/", "client": None, "headers": []}
    assert not kept.access.served(None, b"a", scope, text, 0.1, 2)
    for _ in range(4):
        kept.access.write(asked(), done())
    for certain in (done("server_error"), done(seconds=2.0)):
        kept.access.write(asked(), certain)
    kept.access.write(asked(sampled=True), done())
    weights = [json.loads(raw).get("sample.weight", 1) for raw in kept.raw]
    assert weights == [4.0, 4.0, 1, 1, 1]
    assert left_out == [("sample", "info", 1)] * 2
    with structlog.contextvars.bound_contextvars(shop=7):
        kept.pipeline.sample = AccessSample(share=0.5, chance=lambda: 0.0)
        kept.access.write(asked(), done())
    assert json.loads(kept.raw[-1])["sample.weight"] == 2.0


def test_the_fields_come_in_the_chains_order_with_the_time_first(kept: Kept) -> None:
    request = asked(client_address="10.0.0.7", trace_id="b" * 32, span_id="c" * 16)
    assert list(kept.line(request, done())) == [
        "@timestamp",
        "log.level",
        "message",
        "ecs.version",
        "log.logger",
        "service.name",
        "service.version",
        "service.environment",
        "service.node.name",
        "event.dataset",
        "process.pid",
        "trace.id",
        "span.id",
        "http.request.id",
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "http.response.body.bytes",
        "url.path",
        "client.address",
        "event.duration",
        "event.outcome",
        "labels",
    ]


def test_a_line_names_the_request_and_how_it_ended(kept: Kept) -> None:
    found = kept.line(
        asked(client_request_id="mine", user="d" * 32), done("client_error", status=404)
    )
    assert found["@timestamp"] == "2025-11-24T16:00:00.123456Z"
    assert (found["http.response.status_code"], found["event.duration"]) == (404, 12_500_000)
    assert found["labels"] == {"client_request_id": "mine", "outcome": "client_error"}
    assert found["user.hash"] == "d" * 32
    assert found["process.pid"] == os.getpid()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/reset/password=hunter22", "/reset/password=[redacted]"),
        ("/a\nb\u2028\u2029\x1b[2J", "/a\\nb\\u2028\\u2029\\x1b[2J"),
        ('/"},{"x', '/"},{"x'),
        ("/card/4111111111111111", "/card/[redacted]"),
    ],
    ids=["secret", "control", "quotes", "card"],
)
def test_a_path_forges_nothing_and_gives_nothing_away(kept: Kept, path: str, shown: str) -> None:
    assert kept.line(asked(path=path), done())["url.path"] == shown


def test_a_path_is_cut_at_two_kibibytes_and_the_line_says_so(kept: Kept) -> None:
    found = kept.line(asked(path="/" + "é" * 60_000), done())
    assert len(found["url.path"].encode()) <= FIELD_BYTES
    assert found["labels"] == {"outcome": "ok", "truncated": True}


def test_a_line_that_would_be_too_long_is_shortened_by_the_chain(tmp_path: Path) -> None:
    wide = Kept(tmp_path / "s", instance="i" * LINE_BYTES)
    assert wide.line(asked(), done()) == wide.slow(asked(), done())
    wide.pipeline.close()


def test_without_redaction_the_path_is_as_it_was_asked(tmp_path: Path) -> None:
    open_ones = Kept(tmp_path / "s", redact=False)
    path = "/reset/password=hunter22"
    assert open_ones.line(asked(path=path), done())["url.path"] == path
    open_ones.pipeline.close()


def test_an_exception_is_described_by_the_chain(kept: Kept) -> None:
    found = kept.line(asked(), done("server_error", status=500, failure=RuntimeError("broken")))
    assert (found["error.type"], found["error.message"]) == ("builtins.RuntimeError", "broken")
    assert found["log.level"] == "error"
    cancelled = kept.line(asked(), done("cancelled", status=499, failure=RuntimeError("left")))
    assert "error.type" not in cancelled


def test_what_code_bound_to_the_context_is_on_the_line(kept: Kept) -> None:
    with structlog.contextvars.bound_contextvars(tenant="blue", outcome="forged"):
        found = kept.line(asked(), done())
    assert found["labels"] == {"tenant": "blue", "outcome": "ok"}
    assert kept.line(asked(), done())["labels"] == {"outcome": "ok"}


def test_a_span_that_is_open_around_it_all_is_named(kept: Kept) -> None:
    with TracerProvider().get_tracer("t").start_as_current_span("outer") as span:
        assert kept.line(asked(trace_id="b" * 32), done()) == kept.slow(asked(), done())
    assert span.get_span_context().is_valid


def test_what_is_kept_as_text_is_bounded(kept: Kept) -> None:
    for number in range(MOST_KEPT + 50):
        word = f"/{number}"
        kept.line(asked(route=word, path=word, client_address=word), done())
    access = kept.access
    for cache in (access._answers, access._paths, access._clients):
        assert 0 < len(cache) <= MOST_KEPT
    assert "client.address" not in kept.line(asked(), done())
    kept.line(asked(path="/" + "x" * 500), done())
    assert max(map(len, access._paths)) < 500


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LogPipeline]]:
    from taskscope.settings import Settings

    made: list[LogPipeline] = []

    def begin(**settings: Any) -> LogPipeline:
        pipeline = configure(
            settings=Settings(spool=tmp_path / "spool", **settings),
            service_name="shop",
            service_version="1",
            on_line=lambda _: None,
            on_drop=lambda *_: None,
            on_error=lambda _: None,
        )
        made.append(pipeline)
        return pipeline

    yield begin
    for pipeline in made:
        pipeline.close()


def stored(pipeline: LogPipeline) -> list[dict[str, Any]]:
    found = b"".join(path.read_bytes() for path in sorted(pipeline.spool.folder.glob("*.seg")))
    return [json.loads(line) for line in found.splitlines()]


@pytest.mark.parametrize(
    ("level", "written"), [("INFO", ["ok", "timeout"]), ("ERROR", ["timeout"]), ("CRITICAL", [])]
)
def test_lines_below_the_level_are_not_written(
    start: Callable[..., LogPipeline], level: str, written: list[str]
) -> None:
    pipeline = start(log_level=level)
    access = AccessLines(pipeline)
    access.write(asked(), done("ok"))
    access.write(asked(), done("timeout"))
    assert [line["labels"]["outcome"] for line in stored(pipeline)] == written


def test_a_line_is_printed_as_well_when_asked(
    start: Callable[..., LogPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    AccessLines(start(log_stderr=True)).write(asked(), done())
    assert json.loads(capsys.readouterr().err)["url.path"] == "/pay/7"


def test_a_forked_process_writes_its_own_id(start: Callable[..., LogPipeline]) -> None:
    pipeline = start()
    access = AccessLines(pipeline)
    access.write(asked(), done())
    child = os.fork()
    if child == 0:
        access.write(asked(), done())
        os._exit(0)
    os.waitpid(child, 0)
    assert sorted(line["process.pid"] for line in stored(pipeline)) == sorted([os.getpid(), child])


def test_what_cannot_be_a_line_is_counted_and_kept_from_the_caller(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "s")
    kept.access.write(asked(), done(seconds=float("nan")))
    assert kept.drops == ["encode_error"]
    assert [type(error) for error in kept.errors] == [ValueError]
    kept.pipeline.close()
