"""The loss matrix in its short form: whoever dies or lies, what was answered as stored is in Elasticsearch, once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from taskscope.testing.engines import Missing
from taskscope.testing.loss import CELLS, Cell, Node, Outcome, Pace, World, played, table

pytestmark = [pytest.mark.engine, pytest.mark.timeout(280)]

PACE = Pace(
    rate=100.0,
    before_s=0.5,
    after_s=0.5,
    outage_s=2.0,
    settle_s=60.0,
    repeats=1,
    segment_bytes=262_144,
)
TASKSCOPE = (sys.executable, "-m", "taskscope_ui")
CATALOGUE = ("--app", "loss_catalogue")
WORKER = """
import os
from taskscope import Catalogue
from taskscope.testing.loss.writer import main
from taskscope_exporters.logs.inline import BackgroundShipper
from taskscope_exporters.logs.run import to_stderr
from taskscope_exporters.logs.settings import ShipSettings
catalogue = Catalogue.load("loss_catalogue")
settings = ShipSettings.from_environ(os.environ)
with BackgroundShipper(settings, catalogue=catalogue, port=None, say=to_stderr) as shipper:
    shipper.start()
    main()
"""
SHORT = [cell for cell in CELLS if not cell.long]


def world(node: Node, folder: Path, cell: Cell) -> World:
    service = f"loss-{cell.name.replace(' ', '-')}"
    return World(
        node=node,
        ship=(*TASKSCOPE, "ship", "--port", "0", "--patience", "0", *CATALOGUE),
        setup=(*TASKSCOPE, "logs", "setup", *CATALOGUE),
        replay=(*TASKSCOPE, "logs", "replay", *CATALOGUE),
        worker=(sys.executable, "-c", WORKER),
        folder=folder / service,
        service=service,
        pace=PACE,
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """Cells that leave the server alone are played beside each other, for they wait more than they work."""
    folder = tmp_path_factory.mktemp("loss")
    try:
        node = Node(folder / "elasticsearch")
    except Missing as missing:
        pytest.skip(str(missing))
    with closing(node), ThreadPoolExecutor(3) as beside, ThreadPoolExecutor(1) as alone:
        quiet = {
            cell.name: beside.submit(played, cell, world(node, folder, cell))
            for cell in SHORT
            if not cell.takes_server
        }
        for future in quiet.values():
            future.exception()
        yield {
            **quiet,
            **{
                cell.name: alone.submit(played, cell, world(node, folder, cell))
                for cell in SHORT
                if cell.takes_server
            },
        }


@pytest.mark.parametrize("name", [cell.name for cell in SHORT])
def test_what_was_answered_as_stored_is_there_once(
    outcomes: dict[str, Future[Outcome]], name: str
) -> None:
    outcome = outcomes[name].result()
    assert outcome.holds, "\n" + table([outcome])
