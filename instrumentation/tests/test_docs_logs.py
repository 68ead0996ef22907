"""The examples of the page about logs are run, and what it promises of a line is what is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskscope.logs import configure
from taskscope.settings import Settings
from taskscope.testing.logs import read_lines

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"


def section(title: str) -> str:
    found = PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"{PAGE.name} has no section {title}"
    return found


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


@pytest.fixture
def lines(tmp_path: Path) -> list[dict[str, Any]]:
    """What the section's examples log."""
    namespace: dict[str, Any] = {"__name__": "example"}
    pipeline = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="shop",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    try:
        for code in blocks("What a line holds", "python"):
            exec(compile(code, PAGE.name, "exec"), namespace)
    finally:
        pipeline.close()
    return read_lines(pipeline.spool.folder)


def test_a_line_holds_what_the_page_shows(lines: list[dict[str, Any]]) -> None:
    shown = msgspec.json.decode(blocks("What a line holds", "json")[0], type=dict[str, Any])
    written = lines[0]
    varies = ("@timestamp", "service.node.name", "process.pid")
    assert [type(written[name]) for name in varies] == [type(shown[name]) for name in varies]
    assert {name: written[name] for name in written if name not in varies} == {
        name: shown[name] for name in shown if name not in varies
    }


def test_an_exceptions_list_has_the_keys_of_the_table(lines: list[dict[str, Any]]) -> None:
    (raised,) = lines[1]["error.frames"]
    table = set(re.findall(r"^\| (`.*?) \|", section("What a line holds"), re.MULTILINE))
    named = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert set(raised) <= named
    assert set(raised["frames"][0]) == {"file", "line", "function"}


def test_the_defaults_are_those_that_the_page_names() -> None:
    text = section("Rate limit and sampling")
    settings = Settings()
    assert f"{settings.log_rate:,.0f} by default" in text
    assert f"at once, {settings.log_burst:,}" in text
