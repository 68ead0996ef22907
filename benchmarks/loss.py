"""Is a line lost, or stored twice, when something dies? python benchmarks/loss.py [--quick] [--rounds N] [--cells a,b]

Three processes log numbered lines, 2,000 a second each, while a shipper moves them into a real Elasticsearch, and one
thing after the other is stopped, killed, cut, filled or made to lie. Each writer keeps a record of its own of the lines
that were answered as stored. Each cell ends with a look at every document: a line of the record that is not there is
lost, one that is there more than once is stored twice. Printed are the counts of each cell and round; exit code 1 at
any that does not hold. Progress is on standard error. Some ten minutes a round; --quick is one round of a few seconds
each. Needs Elasticsearch and a compiler, which `make engines` installs; the cell of the full disk needs root's rights
or user namespaces, for it mounts a disk of its own.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import strftime
from typing import Final

from taskscope.testing.loss import CELLS, Node, Outcome, Pace, World, played, table

TASKSCOPE: Final = (sys.executable, "-m", "taskscope_ui")
CATALOGUE: Final = ("--app", "loss_catalogue")
WORKER: Final = """
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
QUICK: Final = Pace(
    rate=300.0, before_s=1.0, after_s=1.0, outage_s=3.0, settle_s=60.0, segment_bytes=524_288
)


def say(sentence: str) -> None:
    """Told on standard error, with the time."""
    sys.stderr.write(f"{strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


def chosen(names: str) -> list[str]:
    """The cells that were asked for. Raises SystemExit for one that is not there."""
    known = [cell.name for cell in CELLS]
    asked = [name.strip() for name in names.split(",") if name.strip()] or known
    if unknown := [name for name in asked if name not in known]:
        raise SystemExit(f"loss: no cell {', '.join(unknown)}; take some of {', '.join(known)}")
    return asked


def run(names: list[str], rounds: int, pace: Pace) -> list[Outcome]:
    """Each cell's outcome, round by round, on one server."""
    outcomes: list[Outcome] = []
    with TemporaryDirectory(prefix="taskscope-loss-") as folder:
        say("starting Elasticsearch")
        with closing(Node(Path(folder, "elasticsearch"))) as node:
            for round_ in range(1, rounds + 1):
                for cell in CELLS:
                    if cell.name not in names:
                        continue
                    service = f"loss-{cell.name.replace(' ', '-')}-{round_}"
                    say(f"{cell.name}, round {round_} of {rounds}")
                    world = World(
                        node=node,
                        ship=(*TASKSCOPE, "ship", "--port", "0", "--patience", "0", *CATALOGUE),
                        setup=(*TASKSCOPE, "logs", "setup", *CATALOGUE),
                        replay=(*TASKSCOPE, "logs", "replay", *CATALOGUE),
                        worker=(sys.executable, "-c", WORKER),
                        folder=Path(folder, service),
                        service=service,
                        pace=pace,
                    )
                    outcomes.append(played(cell, world, round_=round_))
                    say(table(outcomes[-1:]).splitlines()[1])
                    if not outcomes[-1].holds:
                        for process in (*world.writers, *world.shippers):
                            say(f"{process.said.name} ends with: {process.text()[-500:]}")
    return outcomes


def main() -> None:
    """The table is on standard output; exit code 1 if something was lost or stored twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds each, 300 lines/s")
    parser.add_argument("--rounds", type=int, default=None, help="5, or 1 with --quick")
    parser.add_argument("--cells", default="", help="names with commas between; all by default")
    parser.add_argument("--rate", type=float, default=0.0, help="lines/s of each writer")
    asked = parser.parse_args()
    pace = QUICK if asked.quick else Pace()
    if asked.rate:
        pace = replace(pace, rate=asked.rate)
    rounds = asked.rounds or (1 if asked.quick else 5)
    outcomes = run(chosen(asked.cells), rounds, pace)
    sys.stdout.write(table(outcomes) + "\n")
    raise SystemExit(0 if all(outcome.holds for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
