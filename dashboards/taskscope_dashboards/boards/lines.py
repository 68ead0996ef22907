"""The logs board: how many lines, what fails, the lines themselves, and whether each arrives and is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import LOG_ERRORS, LOG_STORED, REQUEST_DURATION
from taskscope.catalogue.promql import selector
from taskscope_dashboards.board import SEARCH, Board, Choice, Row, Variable
from taskscope_dashboards.boards.counted import failures, volume
from taskscope_dashboards.boards.logs import logs_health, request_lines
from taskscope_dashboards.boards.oncall import events
from taskscope_dashboards.boards.pipeline import arrival, counting
from taskscope_dashboards.logquery import LogQuery
from taskscope_dashboards.panel import Panel

__all__ = ["logs"]

_ROUTE: Final = REQUEST_DURATION.label("http.route").prometheus


def logs(catalogue: Catalogue) -> Board:
    """The logs board of the catalogue's service."""
    return Board(
        service=catalogue.service,
        slug="logs",
        title=f"{catalogue.service} · logs",
        description="How many lines of which level, what fails, the lines themselves, and whether each arrives.",
        rows=(
            Row(title="How many lines?", panels=volume(catalogue)),
            Row(title="What fails, and where?", panels=failures(catalogue)),
            Row(title="What do the lines say?", panels=(_list(catalogue),)),
            Row(
                title="Does every line arrive, once?",
                panels=(*logs_health(catalogue), *arrival(catalogue)),
            ),
            Row(title="Can the counts be believed?", panels=counting(catalogue)),
        ),
        variables=_variables(catalogue),
        annotations=events(catalogue),
        others=(("oncall", "On call"), ("requests", "Requests"), ("runtime", "Runtime")),
    )


def _variables(catalogue: Catalogue) -> tuple[Variable, ...]:
    requests = selector(catalogue, REQUEST_DURATION, part="count")
    stored, errors = selector(catalogue, LOG_STORED), selector(catalogue, LOG_ERRORS)
    level, exception = LOG_STORED.label_names[0], LOG_ERRORS.label_names[0]
    return (
        Variable(name="route", label="Route", query=f"label_values({requests}, {_ROUTE})"),
        Variable(name="level", label="Level", query=f"label_values({stored}, {level})"),
        Variable(name="exception", label="Exception", query=f"label_values({errors}, {exception})"),
        Variable(name=SEARCH, label="Trace id, or search lines", choice=Choice.TEXT, value="*"),
    )


def _list(catalogue: Catalogue) -> Panel:
    return replace(
        request_lines(catalogue),
        title="Lines of the chosen routes, levels and exceptions",
        description=(
            "The newest lines that match all that is chosen above, with or without a route. Paste a trace id into the "
            "search field, or open a line and follow its trace.id to every line of that request."
        ),
        logs=LogQuery(
            service=catalogue.service,
            by_route=True,
            without_route=True,
            by_level=True,
            by_exception=True,
            searchable=True,
        ),
        height=13,
    )
