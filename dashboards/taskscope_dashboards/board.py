"""What a board is: rows of panels, the choices a reader has, and the events marked on every graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from taskscope.catalogue.links import board_uid
from taskscope_dashboards.panel import BoardError, Panel

__all__ = ["PROMETHEUS", "SEARCH", "Annotation", "Board", "Choice", "Row", "Source", "Variable"]

PROMETHEUS: Final = "prometheus"
"""Name of the variable that holds the Prometheus datasource; its provisioned uid is the same word."""
SEARCH: Final = "search"
"""Name of the variable that narrows the log panels."""


class Source(Enum):
    """A datasource variable: its value is Grafana's plugin id and the provisioned uid."""

    PROMETHEUS = "prometheus"
    LOGS = "elasticsearch"

    @property
    def variable(self) -> str:
        return "prometheus" if self is Source.PROMETHEUS else "logs"


class Choice(Enum):
    """How a variable gets its values."""

    LABEL_VALUES = "query"
    TEXT = "textbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What a reader may choose. query: `label_values(…)` for LABEL_VALUES; all values are chosen at first.

    value: what a TEXT holds at first.
    """

    name: str
    label: str
    choice: Choice = Choice.LABEL_VALUES
    query: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """Events marked on every graph. expr: one sample per event and step.

    value_is_time: the sample is the event's time in milliseconds since 1970.
    """

    name: str
    expr: str
    title: str
    text: str
    colour: str
    value_is_time: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading that asks what they answer."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One board of one service. Raises BoardError if two panels ask the same or bear one title.

    others: slug and title of boards that its header links to.
    """

    service: str
    slug: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        asked: dict[tuple[str, ...], str] = {}
        titles: set[str] = set()
        for panel in self.panels:
            if panel.title in titles:
                raise BoardError(f"{self.uid}: two panels are called {panel.title!r}; rename one")
            titles.add(panel.title)
            question = tuple(query.expr for query in panel.queries)
            if question and question in asked:
                raise BoardError(
                    f"{self.uid}: {panel.title!r} asks what {asked[question]!r} asks; remove one"
                )
            asked[question] = panel.title

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in reading order."""
        return tuple(panel for row in self.rows for panel in row.panels)

    @property
    def uid(self) -> str:
        """Grafana's uid, which never changes: bookmarks and alerts point at it."""
        return board_uid(self.service, self.slug)
