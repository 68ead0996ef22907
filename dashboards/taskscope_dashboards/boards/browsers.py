"""Panels of what browsers report: web vitals against what counts as good, script errors, and reports refused.

Good is what three page views in four keep to: LCP 2.5 s, INP 0.2 s, CLS 0.1 (web.dev, Web Vitals).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.groups import (
    BEACON_REFUSED,
    BROWSER_ERRORS,
    LAYOUT_SHIFT,
    WEB_VITAL_DURATION,
)
from taskscope_dashboards.boards.dependencies import Made, declared, labelled
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Panel, Query, Step, unit_of
from taskscope_dashboards.queries import per_second, quantile

__all__ = ["browsers"]

_P75: Final = Decimal("0.75")


def browsers(catalogue: Catalogue) -> tuple[Panel, ...]:
    """What the users' browsers see of the pages."""
    made: tuple[Made, ...] = (
        (WEB_VITAL_DURATION, _largest_paint(catalogue)),
        (WEB_VITAL_DURATION, _interaction(catalogue)),
        (LAYOUT_SHIFT, _layout_shift(catalogue)),
        (WEB_VITAL_DURATION, _before(catalogue)),
        (BROWSER_ERRORS, _errors(catalogue)),
        (BEACON_REFUSED, _refused(catalogue)),
    )
    return spread(declared(catalogue, made), per_line=3, height=7)


def _good_until(bound: str) -> tuple[Step, ...]:
    return (Step(colour="green"), Step(colour="red", above=Decimal(bound)))


def _largest_paint(catalogue: Catalogue) -> Panel:
    route, vital = WEB_VITAL_DURATION.label_names
    return Panel(
        title="Largest contentful paint, p75",
        description=(
            "Time until the largest part of a page is there, for three page views in four. Above 2.5 s users wait: see "
            "the time to the first byte, then images and what blocks drawing."
        ),
        unit=unit_of(WEB_VITAL_DURATION),
        queries=(
            Query(
                expr=quantile(
                    catalogue, WEB_VITAL_DURATION, _P75, by=(route,), matchers=(f'{vital}="lcp"',)
                ),
                legend=labelled(route),
            ),
        ),
        steps=_good_until("2.5"),
    )


def _interaction(catalogue: Catalogue) -> Panel:
    route, vital = WEB_VITAL_DURATION.label_names
    return Panel(
        title="Interaction to next paint, p75",
        description=(
            "Time from a click or key to what it changes, for three page views in four. Above 200 ms the page feels "
            "stuck: a script holds the main thread."
        ),
        unit=unit_of(WEB_VITAL_DURATION),
        queries=(
            Query(
                expr=quantile(
                    catalogue, WEB_VITAL_DURATION, _P75, by=(route,), matchers=(f'{vital}="inp"',)
                ),
                legend=labelled(route),
            ),
        ),
        steps=_good_until("0.2"),
    )


def _layout_shift(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Cumulative layout shift, p75",
        description=(
            "How much a page moves under the reader, for three page views in four. Above 0.1 people click what they "
            "did not mean: give images and late parts their place beforehand."
        ),
        unit="short",  # a score, no share
        queries=(
            Query(
                expr=quantile(catalogue, LAYOUT_SHIFT, _P75, by=LAYOUT_SHIFT.label_names),
                legend=labelled(*LAYOUT_SHIFT.label_names),
            ),
        ),
        steps=_good_until("0.1"),
    )


def _before(catalogue: Catalogue) -> Panel:
    vital = WEB_VITAL_DURATION.label_names[1]
    return Panel(
        title="First byte and first paint, p75",
        description=(
            "Time to the first byte (good below 0.8 s) and to the first paint (good below 1.8 s). The first byte is "
            "the service and the network; what lies between is the page's own."
        ),
        unit=unit_of(WEB_VITAL_DURATION),
        queries=(
            Query(
                expr=quantile(
                    catalogue,
                    WEB_VITAL_DURATION,
                    _P75,
                    by=(vital,),
                    matchers=(f'{vital}=~"fcp|ttfb"',),
                ),
                legend=labelled(vital),
            ),
        ),
    )


def _errors(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Script errors per second",
        description=(
            "Errors of scripts in browsers, by the page's route. A rise with a release is the release; without one, a "
            "foreign script or a browser's update."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, BROWSER_ERRORS, by=BROWSER_ERRORS.label_names),
                legend=labelled(*BROWSER_ERRORS.label_names),
            ),
        ),
    )


def _refused(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Refused reports per second",
        description=(
            "Reports of browsers that were not counted, by reason. rate: more than is needed, the vitals hold; syntax, "
            "name or value: a foreign sender, or an old script in a cache; origin: another site's pages."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, BEACON_REFUSED, by=BEACON_REFUSED.label_names),
                legend=labelled(*BEACON_REFUSED.label_names),
            ),
        ),
        stacked=True,
    )
