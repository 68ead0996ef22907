"""Nothing in a value begins a line or steers a terminal: in the spool, as printed, and in what the pipeline says."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.pipeline import LogPipeline
from taskscope.logs.spool import Spool

FORGED = (
    '\n{"message":"forged","log.level":"critical"}\n',
    "\r\n",
    "\x1b[2J\x1b]0;title\x07",
    "\u2028",
    "\u2029",
    "\x85",
    "\x9b31m",
    "\x0b\x0c\x1c\x1d\x1e",
    "\x00",
    "\x7f",
    "\ud800",
    "\udfff\ud800",
    "\u202e\u2066",
    '"}\n{"a":"',
    "\\n",
)
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
texts = st.lists(st.sampled_from(FORGED) | st.text(st.characters(), max_size=8), max_size=6).map(
    "".join
)
values = st.recursive(
    texts | texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | texts.map(ValueError),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


class Printed:
    """A pipeline whose lines are printed as well."""

    def __init__(self, folder: Path) -> None:
        self.terminal = io.StringIO()
        self.complaints = io.StringIO()
        self.folder = folder
        self.pipeline = LogPipeline(
            encoder=EcsEncoder(
                service_name="shop", service_version="1", environment="e\udcff", instance="i"
            ),
            spool=Spool(folder, max_bytes=2**26, segment_bytes=2**22),
            on_line=lambda _level: None,
            on_drop=lambda _reason, _level: None,
            on_error=lambda _error: None,
            echo=self.terminal,
            complaints=self.complaints,
        )

    def stored(self, since: int = 0) -> bytes:
        """The bytes of the one segment, from that place on."""
        for segment in self.folder.glob("*.seg"):
            with segment.open("rb") as file:
                file.seek(since)
                return file.read()
        return b""


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[Printed]:
    made = Printed(tmp_path / "spool")
    yield made
    made.pipeline.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.dictionaries(texts, values, max_size=3), texts, st.none() | texts)
def test_an_event_is_one_line_wherever_it_is_read(
    printed: Printed,
    message: str,
    fields: dict[str, object],
    logger: str,
    failure: str | None,
) -> None:
    seen = printed.terminal.tell()
    before = len(printed.terminal.getvalue().encode())
    error = None if failure is None else ValueError(failure)
    printed.pipeline.emit(
        {"event": message, **fields},
        level="info",
        logger=logger,
        exc_info=None if error is None else (ValueError, error, None),
    )
    stored = printed.stored(before).decode("utf-8")
    shown = printed.terminal.getvalue()[seen:]
    for told in (stored, shown):
        assert len(told.splitlines()) == 1
        assert told.endswith("}\n")
        assert not STEERING.search(told)
    assert json.loads(stored)["service.name"] == "shop"
    assert json.loads(stored)["log.level"] == "info"


@pytest.mark.parametrize("forged", FORGED, ids=ascii)
def test_what_the_pipeline_says_of_itself_is_one_line(tmp_path: Path, forged: str) -> None:
    printed = Printed(tmp_path / "spool")
    try:
        printed.pipeline.unencoded(ValueError(f"{forged} at postgresql://app:n33dle@db/tasks"))
    finally:
        printed.pipeline.close()
    told = printed.complaints.getvalue()
    assert len(told.splitlines()) == 1
    assert not STEERING.search(told)
    assert "n33dle" not in told


def test_a_fault_in_redaction_is_told_without_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: object, _text: str) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.redaction.rules.Redaction.text", fail)
    printed = Printed(tmp_path / "spool")
    try:
        printed.pipeline.emit({"event": "n33dle " * 20}, level="info", logger="app")
    finally:
        printed.pipeline.close()
    assert printed.stored() == b""
    assert "its cause cannot be told" in printed.complaints.getvalue()
