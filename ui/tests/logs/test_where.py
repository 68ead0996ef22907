"""Where the commands look without being told."""

from __future__ import annotations

from pathlib import Path

from taskscope_ui.commands.logs_where import environ_of


def test_what_the_environment_says_holds(tmp_path: Path) -> None:
    environ = {"ELASTICSEARCH_URL": "http://127.0.0.1:9"}
    assert environ_of(environ, tmp_path / "spool") is environ


def test_where_no_stack_was_started_nothing_is_added(tmp_path: Path) -> None:
    assert environ_of({}, tmp_path / "spool") == {}


def test_a_state_that_is_none_is_no_stack(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "run" / "stack.json", tmp_path / "state.json"):
        path.write_text("{")
    assert environ_of({"HOME": "x"}, tmp_path / "spool") == {"HOME": "x"}
