"""The arithmetic of burn rates in Decimal: which windows are watched, and above which share of bad events.

Read by the rules and by the runbooks, so that both state the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from taskscope.catalogue import Objective
from taskscope_alerts.severity import Severity

__all__ = ["SECONDS", "Tier", "tiers"]

SECONDS: Final = {
    "5m": 300,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "6h": 21_600,
    "1d": 86_400,
    "3d": 259_200,
}
"""The length of every window a tier may have, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A row of the Workbook's table: the share of the budget that is gone when `long` has burned so fast.

    least_long, least_short: fewest bad events in each window. settled: how long there must have been answers.
    """

    severity: Severity
    spent: Decimal
    long: str
    short: str
    least_long: int
    least_short: int
    settled: str


_PAGE: Final = Severity.PAGE
_TICKET: Final = Severity.TICKET
# the least numbers of bad events were measured on simulated weeks of 1, 75 and 1,500 requests a second
_SHAPES: Final = (
    _Shape(
        severity=_PAGE,
        spent=Decimal("0.02"),
        long="1h",
        short="5m",
        least_long=12,
        least_short=4,
        settled="",
    ),
    _Shape(
        severity=_PAGE,
        spent=Decimal("0.05"),
        long="6h",
        short="30m",
        least_long=20,
        least_short=4,
        settled="2h",
    ),
    _Shape(
        severity=_TICKET,
        spent=Decimal("0.1"),
        long="1d",
        short="2h",
        least_long=30,
        least_short=8,
        settled="6h",
    ),
    _Shape(
        severity=_TICKET,
        spent=Decimal("0.1"),
        long="3d",
        short="6h",
        least_long=60,
        least_short=15,
        settled="1d",
    ),
)
_LEAST_FACTOR: Final = {Severity.PAGE: Decimal(2), Severity.TICKET: Decimal(1)}
"""Below 1 the budget lasts, so there is nothing to tell; nobody is woken for what lasts half the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One pair of windows of one objective.

    factor: multiples of the sustainable rate; 1 spends the budget exactly at the window's end.
    threshold: share of bad events above which both windows burn so fast, exact.
    least_long, least_short: bad events that each window must exceed. settled: a Prometheus duration; the tier says
    nothing before there were answers that long ago; empty: at once.
    """

    severity: Severity
    factor: Decimal
    threshold: Decimal
    long: str
    short: str
    least_long: int
    least_short: int
    settled: str


def tiers(objective: Objective, severity: Severity) -> tuple[Tier, ...]:
    """The tiers of an objective that page, or that raise a ticket.

    The factors are the Workbook's for 30 days (14.4, 6, 3, 1), scaled to the objective's window and never below 2
    for a page or 1 for a ticket. A threshold is at most half-way from the budget to 1, so an outage always exceeds
    it, however low the target. A long window that is longer than the objective's own is left out.
    """
    return tuple(
        _tier(objective, shape)
        for shape in _SHAPES
        if shape.severity is severity and SECONDS[shape.long] <= objective.window.seconds
    )


def _tier(objective: Objective, shape: _Shape) -> Tier:
    exact = shape.spent * objective.window.seconds / SECONDS[shape.long]
    rounded = exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    factor = max(rounded, _LEAST_FACTOR[shape.severity])
    reachable = (1 + objective.budget) / 2
    return Tier(
        severity=shape.severity,
        factor=factor,
        threshold=min(factor * objective.budget, reachable),
        long=shape.long,
        short=shape.short,
        least_long=shape.least_long,
        least_short=shape.least_short,
        settled=shape.settled or _warm_up(objective),
    )


def _warm_up(objective: Objective) -> str:
    """Latency waits 5 minutes after a first start: cold caches and pools are slow, and a page helps nobody.

    Errors do not wait: an outage in the second minute of a stack's life is one.
    """
    return "5m" if objective.threshold is not None else ""
