"""The page of what holds when things go wrong: each of its rows names a test, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs" / "reliability.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|--")]


def _defined() -> set[str]:
    return {
        name
        for module in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", module.read_text(), re.MULTILINE)
    }


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 50
    assert named - _defined() == set()


def test_every_row_of_an_attack_or_a_fault_names_a_test() -> None:
    rows = [row.split("|") for row in ROWS if row.count("|") == 5]
    assert len(rows) > 25
    assert [row[1] for row in rows if "`test_" not in row[4] and row[4] != " tests "] == []
