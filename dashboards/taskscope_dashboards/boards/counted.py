"""Panels of lines as they are counted in Elasticsearch: how many of which level, and what fails where."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Metric
from taskscope.catalogue.builtin import LOG_ERRORS, LOG_STORED
from taskscope.catalogue.promql import selector
from taskscope_dashboards.boards.logs import LEVEL_COLOURS
from taskscope_dashboards.layout import spread
from taskscope_dashboards.links import to_lines
from taskscope_dashboards.panel import Column, Panel, Query, Step, View
from taskscope_dashboards.queries import RATE

__all__ = ["failures", "volume"]

_LEVEL, _DATASET = LOG_STORED.label_names
_TYPE, _ROUTE = LOG_ERRORS.label_names
_OF_LEVEL: Final = (f'{_LEVEL}=~"$level"',)
_OF_ERRORS: Final = (f'{_TYPE}=~"$exception"', f'{_ROUTE}=~"$route"')
_CHOSEN_TIME: Final = "$__range"
_TOP: Final = 10


def _counted(
    catalogue: Catalogue,
    metric: Metric,
    by: str,
    matchers: tuple[str, ...],
    *,
    function: str = "rate",
    window: str = RATE,
) -> str:
    """Lines by one label; of several collectors that count the same lines, each line once."""
    source = selector(catalogue, metric, matchers=matchers)
    return f"sum by ({by}) (max without (instance) ({function}({source}[{window}])))"


def volume(catalogue: Catalogue) -> tuple[Panel, ...]:
    """How many lines were stored, by level and by dataset."""
    over_time = Panel(
        title="Lines stored per second, by level",
        description=(
            "Lines as they arrive in Elasticsearch, by level; an outage shows as a gap and then as a burst. A rise of "
            "error or warning before users feel something is the earliest sign: read what fails, below."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=_counted(catalogue, LOG_STORED, _LEVEL, _OF_LEVEL), legend="{{log_level}}"),
        ),
        stacked=True,
        colours=LEVEL_COLOURS,
    )
    by_dataset = Panel(
        title="Lines stored per second, by dataset",
        description=(
            "Lines as they arrive, by the part of the service that wrote them. One that grows alone logs in a loop, or "
            "at level debug: find its events in the list, then raise its level."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=_counted(catalogue, LOG_STORED, _DATASET, _OF_LEVEL),
                legend="{{event_dataset}}",
            ),
        ),
        stacked=True,
    )
    total = Panel(
        title="Lines stored in the chosen time",
        description=(
            "How many lines arrived in the time that the board shows, by level. It is what a search over the same "
            "arrivals finds; a difference to what was written waits on disk, see the age below."
        ),
        unit="none",
        view=View.STAT,
        decimals=0,
        queries=(
            Query(
                expr=_counted(
                    catalogue,
                    LOG_STORED,
                    _LEVEL,
                    _OF_LEVEL,
                    function="increase",
                    window=_CHOSEN_TIME,
                ),
                legend="{{log_level}}",
                instant=True,
            ),
        ),
    )
    return spread((over_time, by_dataset, total), per_line=3, height=8)


def failures(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Lines of level error and critical: which exceptions, and on which routes."""
    return (
        *spread((_top_types(catalogue), _top_routes(catalogue)), per_line=2, height=8),
        *spread((_types(catalogue), _routes(catalogue)), per_line=2, height=8),
    )


def _top(catalogue: Catalogue, by: str) -> str:
    counted = _counted(
        catalogue, LOG_ERRORS, by, _OF_ERRORS, function="increase", window=_CHOSEN_TIME
    )
    return f"topk({_TOP}, {counted})"


def _top_types(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Exceptions, top 10",
        description=(
            "Error lines of the chosen time by the exception's type; none: a line without an exception. Take the one "
            "that grew, click it, and read its newest line with its stack in the list below."
        ),
        unit="none",
        view=View.TABLE,
        decimals=0,
        queries=(Query(expr=_top(catalogue, _TYPE), legend="Error lines", instant=True),),
        columns=(
            Column(label=_TYPE, title="Exception", link=to_lines(catalogue, variable="exception")),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(1))),
    )


def _top_routes(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Routes by error lines, top 10",
        description=(
            "Error lines of the chosen time by route; none: outside of a request, such as a background task. One "
            "route: its code or data; all of them: what they share. A click narrows the board to it."
        ),
        unit="none",
        view=View.TABLE,
        decimals=0,
        queries=(Query(expr=_top(catalogue, _ROUTE), legend="Error lines", instant=True),),
        columns=(Column(label=_ROUTE, title="Route", link=to_lines(catalogue, variable="route")),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(1))),
    )


def _types(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Error lines per second, by exception",
        description=(
            "When each exception came. A step up at a restart mark is the release; one that comes with the latency is "
            "most often a time-out of something below. __overflow__: more types than are told apart."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=_counted(catalogue, LOG_ERRORS, _TYPE, _OF_ERRORS), legend="{{error_type}}"),
        ),
        stacked=True,
        link=to_lines(catalogue, variable="exception", label=_TYPE),
    )


def _routes(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Error lines per second, by route",
        description=(
            "On which routes the error lines were written. Compare with the share of failed requests on the requests "
            "board: error lines without failed requests are caught somewhere, or too loud."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=_counted(catalogue, LOG_ERRORS, _ROUTE, _OF_ERRORS), legend="{{http_route}}"
            ),
        ),
        stacked=True,
        link=to_lines(catalogue, variable="route", label=_ROUTE),
    )
