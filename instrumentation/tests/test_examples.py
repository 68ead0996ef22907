"""The examples run as they stand: their tests, their server, and what is built from their catalogue."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(*words: str, cwd: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_shops_own_tests_pass() -> None:
    done = _run("pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "shop")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_the_shops_rules_and_boards_are_built_and_agree(tmp_path: Path) -> None:
    built = _run(
        "taskscope_ui.cli", "build", "--app", "shop.catalogue", "--into", str(tmp_path / "deploy")
    )
    assert (built.returncode, built.stderr) == (0, "")
    rules = list((tmp_path / "deploy").rglob("*.yml"))
    assert any("fast-answers" in path.read_text() for path in rules)


@pytest.mark.parametrize("word", ["uvicorn", "python -m pytest", "taskscope build --app"])
def test_the_readme_tells_how_to_run_it(word: str) -> None:
    assert word in (EXAMPLES / "README.md").read_text()
