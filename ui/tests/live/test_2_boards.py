"""Two minutes after the stack came up every panel has data; in the first three nothing fires but the watchdog."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskscope.testing.promql import substitute

from .conftest import PROJECT, Live, until

pytestmark = [pytest.mark.engine, pytest.mark.stack]

BOARDS = sorted((PROJECT / "dashboards" / "generated").glob("*.json"))
WITH_LINES = [path for path in BOARDS if not path.stem.endswith("-runtime")]
ANY = {"route": ".*", "method": ".*", "level": ".*", "exception": ".*", "search": "*"}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_of_a_board_answers_with_data_after_two_minutes(
    live: Live, steady: float, path: Any
) -> None:
    time.sleep(max(0.0, steady + 120 - time.monotonic()))  # the very claim: at 120 s
    board = json.loads(path.read_text())
    asked = [
        (panel["title"], target)
        for panel in panels(board)
        for target in panel.get("targets", ())
        if target["datasource"]["type"] == "prometheus"
    ]
    empty = [
        f"{title}: {target['expr']}"
        for title, target in asked
        if not live.query(substitute(target["expr"], ANY).replace("61s", "40s"))
    ]
    assert len(asked) > 10
    assert empty == []


@pytest.mark.parametrize("path", WITH_LINES, ids=lambda path: path.stem)
def test_every_log_panel_finds_lines(live: Live, steady: float, path: Any) -> None:
    board = json.loads(path.read_text())
    queries = [
        re.sub(r"\$\{\w+:regex\}", ".*", target["query"]).replace("$search", "*")
        for panel in panels(board)
        for target in panel.get("targets", ())
        if target["datasource"]["type"] == "elasticsearch"
    ]
    assert queries
    assert [q for q in queries if not live.search({"query_string": {"query": q}})] == []


@pytest.mark.timeout(400)
def test_nothing_fires_but_the_watchdog_in_three_minutes(live: Live, steady: float) -> None:
    time.sleep(max(0.0, live.started + 180 - time.monotonic()))  # the very claim: for 180 s
    fired = live.query('count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[5m]))')
    assert {row["metric"]["alertname"] for row in fired} == {"Watchdog"}
    until(lambda: {name for name, _ in live.alerts()} == {"Watchdog"}, within_s=30)


def test_the_doctor_is_silent_when_all_is_well(live: Live, steady: float) -> None:
    seen = live.doctor()
    assert (seen.stdout, seen.stderr, seen.returncode) == ("", "", 0)
