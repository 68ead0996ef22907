"""What a panel is, before any JSON: a question, its unit, what its colours mean, and what to do about it.

Values only; `grafana.py` knows how Grafana writes them, `boards/` knows which there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from taskscope.catalogue import Metric
from taskscope.errors import TaskscopeError
from taskscope_dashboards.logquery import LogQuery

__all__ = [
    "BoardError",
    "Column",
    "Link",
    "Panel",
    "Query",
    "Step",
    "View",
    "rate_unit",
    "unit_of",
]

_UNITS = {"s": "s", "By": "bytes", "1": "percentunit"}
_RATE_UNITS = {"s": "percentunit", "By": "Bps", "1": "short"}


class BoardError(TaskscopeError):
    """For the developer of a board: a panel, row or variable is not as it must be."""


class View(Enum):
    """How a panel draws; the values are Grafana's panel types."""

    TIMESERIES = "timeseries"
    STAT = "stat"
    TABLE = "table"
    HEATMAP = "heatmap"
    LOGS = "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL question.

    legend: Grafana's pattern for a series' name, `{{label}}`; in a table, the title of the value's column.
    instant: answer now only; a table is always instant. unit: a column's own unit, where it is not the panel's.
    exemplars: show the traces that stand behind single observations.
    """

    expr: str
    legend: str
    instant: bool = False
    exemplars: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A colour and the value from which it holds; None: from the lowest on."""

    colour: str
    above: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where a click on a value leads; Grafana puts the value's labels into the address."""

    title: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column made from a label, and where its cells lead."""

    label: str
    title: str
    link: Link | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. Raises BoardError if it lacks what a reader in the night needs.

    description: what is seen, then what to do; sentences. unit: Grafana's unit id.
    steps: rising thresholds, the first without a value. colours: a series' name and its fixed colour.
    columns: a table's label columns, in order. sparkline: a stat draws its last hour behind the number.
    maximum: the end of the scale where it is known. decimals: fixed digits after the point, or None.
    """

    title: str
    description: str
    unit: str
    view: View = View.TIMESERIES
    queries: tuple[Query, ...] = ()
    logs: LogQuery | None = None
    steps: tuple[Step, ...] = ()
    colours: tuple[tuple[str, str], ...] = ()
    columns: tuple[Column, ...] = ()
    link: Link | None = None
    stacked: bool = False
    sparkline: bool = False
    maximum: Decimal | None = None
    decimals: int | None = None
    width: int = 8
    height: int = 8

    def __post_init__(self) -> None:
        if not self.description.endswith(".") or len(self.description.split()) < 4:
            raise BoardError(
                f"panel {self.title!r}: description {self.description!r} is no sentence; "
                "say what is seen and what to do about it"
            )
        if not self.unit:
            raise BoardError(f"panel {self.title!r} has no unit; take unit_of(metric)")
        if bool(self.queries) == (self.view is View.LOGS) or bool(self.logs) != (
            self.view is View.LOGS
        ):
            raise BoardError(
                f"panel {self.title!r}: a {self.view.value} panel needs "
                f"{'logs=LogQuery(…) and no queries' if self.view is View.LOGS else 'queries, and no logs'}"
            )
        if (self.view is View.TABLE) != bool(self.columns):
            raise BoardError(
                f"panel {self.title!r}: columns belong to a table, and a table to columns"
            )
        self._check_steps()

    def _check_steps(self) -> None:
        if not self.steps:
            return
        bounds = [step.above for step in self.steps[1:]]
        known = [bound for bound in bounds if bound is not None]
        if self.steps[0].above is not None or len(known) != len(bounds) or known != sorted(known):
            raise BoardError(
                f"panel {self.title!r}: thresholds do not rise; give the first no value, then each a higher one"
            )


def unit_of(metric: Metric) -> str:
    """Grafana's unit for the metric's own values."""
    return _UNITS.get(metric.unit, "short")


def rate_unit(metric: Metric) -> str:
    """Grafana's unit for the metric's rate per second; seconds per second are a share of one processor."""
    return _RATE_UNITS.get(metric.unit, "suffix: /s")
