"""Counts what is lost, or stored twice, of a service's lines when something dies: a matrix of cells on real servers."""

from taskscope.testing.loss.cells import CELLS, Cell
from taskscope.testing.loss.outcome import Outcome, Record, judged, table
from taskscope.testing.loss.world import Node, Pace, World, played

__all__ = [
    "CELLS",
    "Cell",
    "Node",
    "Outcome",
    "Pace",
    "Record",
    "World",
    "judged",
    "played",
    "table",
]
