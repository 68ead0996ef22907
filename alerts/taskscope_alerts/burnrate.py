"""Multi-window, multi-burn-rate alerts for each objective: a page for a fast burn, a ticket for a slow one.

Both windows of a tier must burn, so a spike that is over pages nobody and an incident that ended resolves soon.
Source: SRE Workbook, ch. 5, with two guards of our own. A tier needs a least number of bad events in both windows:
at two requests a minute one error is no incident. And a tier whose long window would hold no more past than its
short one, because the stack has only just started, says nothing yet: two equal windows confirm nothing.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue, Objective
from taskscope.catalogue.promql import number, sli_ratio
from taskscope_alerts.advice import burning as advice
from taskscope_alerts.expression import all_of, any_of
from taskscope_alerts.recording import event_count, recorded
from taskscope_alerts.rule import Alert
from taskscope_alerts.severity import Severity
from taskscope_alerts.tier import Tier, tiers

__all__ = ["FAST_HOLD", "FAST_KEEP", "SLOW_HOLD", "burning", "camel", "fast_burn", "slow_burn"]

FAST_HOLD: Final = "30s"
FAST_KEEP: Final = "3m"
"""A burn that flickers around its threshold is one page, not five."""

SLOW_HOLD: Final = "15m"


def burning(catalogue: Catalogue, objective: Objective, tier: Tier) -> str:
    """PromQL that holds while the objective burns as fast as the tier says; its value is the short window's share."""
    above = number(tier.threshold)
    bad, events = "slo:bad_events:rate5m", "slo:events:rate5m"
    conditions = [
        f"{sli_ratio(catalogue, objective, tier.short)} > {above}",
        f"{sli_ratio(catalogue, objective, tier.long)} > {above}",
        f"{event_count(catalogue, objective, bad, tier.short)} > {tier.least_short}",
        f"{event_count(catalogue, objective, bad, tier.long)} > {tier.least_long}",
    ]
    if tier.settled:
        conditions.append(f"{recorded(catalogue, objective, events)} offset {tier.settled} >= 0")
    return all_of(*conditions)


def fast_burn(catalogue: Catalogue, objective: Objective) -> Alert:
    """The page: at this rate the budget is gone in hours or a few days."""
    chosen = tiers(objective, Severity.PAGE)
    return _alert(
        catalogue,
        objective,
        chosen,
        name=f"{camel(objective.name)}BudgetFastBurn",
        hold=FAST_HOLD,
        keep=FAST_KEEP,
    )


def slow_burn(catalogue: Catalogue, objective: Objective) -> Alert:
    """The ticket: nobody is woken, but the budget will not last its window."""
    chosen = tiers(objective, Severity.TICKET)
    return _alert(
        catalogue,
        objective,
        chosen,
        name=f"{camel(objective.name)}BudgetSlowBurn",
        hold=SLOW_HOLD,
        keep="",
    )


def camel(slug: str) -> str:
    """`request-latency` as `RequestLatency`."""
    return "".join(word.capitalize() for word in slug.split("-"))


def _alert(
    catalogue: Catalogue,
    objective: Objective,
    chosen: tuple[Tier, ...],
    *,
    name: str,
    hold: str,
    keep: str,
) -> Alert:
    events = advice.events(objective)
    return Alert(
        name=name,
        expr=any_of(*(burning(catalogue, objective, tier) for tier in chosen)),
        severity=chosen[0].severity,
        labels=(
            ("service", catalogue.service),
            ("slo", objective.name),
            ("subsystem", objective.metric.subsystem),
        ),
        hold=hold,
        keep=keep,
        summary=(
            f"{catalogue.service} {objective.name}: {{{{ $value | humanizePercentage }}}} of {events} are bad"
        ),
        description=advice.description(objective, chosen),
        runbook=advice.runbook(catalogue, objective, chosen),
    )
