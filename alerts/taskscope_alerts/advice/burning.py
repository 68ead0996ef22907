"""The words about a burning error budget, with the objective's own numbers."""

from __future__ import annotations

from decimal import Decimal

from taskscope.catalogue import Catalogue, Kind, Objective
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.promql import any_of, escape, number, selector, sli_ratio
from taskscope_alerts.advice import first_look
from taskscope_alerts.advice.figures import percent, span
from taskscope_alerts.runbook import Runbook, Step
from taskscope_alerts.severity import Severity
from taskscope_alerts.tier import SECONDS, Tier

__all__ = ["bad_condition", "description", "events", "runbook"]


def events(objective: Objective) -> str:
    """What the objective counts, in one word."""
    return "requests" if objective.metric == REQUEST_DURATION else "events"


def bad_condition(objective: Objective) -> str:
    """What makes an event bad, in words."""
    if objective.bad is not None:
        values = " or ".join(f"`{value}`" for value in objective.bad.values)
        return f"`{objective.bad.label}` is {values}"
    unit = objective.metric.base_unit.suffix or objective.metric.unit
    return f"it took longer than {number(objective.threshold or Decimal(0))} {unit}"


def description(objective: Objective, chosen: tuple[Tier, ...]) -> str:
    """The annotation: the objective, what is measured now, and how long the budget lasts at that rate."""
    fastest = chosen[0]
    when = "now" if fastest.severity is Severity.PAGE else f"over {fastest.short} or longer"
    return (
        f"Objective: {objective.title}, {percent(objective.target)} over {objective.window.days} days. "
        f"{{{{ $value | humanizePercentage }}}} of {events(objective)} are bad {when}; sustainable are "
        f"{percent(objective.budget)}. Above {percent(fastest.threshold)} the whole budget is gone in "
        f"{span(_lasts(objective, fastest))} or less."
    )


def runbook(catalogue: Catalogue, objective: Objective, chosen: tuple[Tier, ...]) -> Runbook:
    """What to do about a burning budget."""
    paged = chosen[0].severity is Severity.PAGE
    return Runbook(
        meaning=_meaning(objective, paged=paged),
        urgency=_urgency(objective, chosen),
        look=_look(catalogue, objective, chosen),
        causes=_SLOW_CAUSES if objective.threshold is not None else _ERROR_CAUSES,
        mitigate=_mitigate(catalogue, paged=paged),
        resolves=_resolves(chosen, paged=paged),
    )


def _lasts(objective: Objective, tier: Tier) -> Decimal:
    return objective.window.seconds * objective.budget / tier.threshold


def _meaning(objective: Objective, *, paged: bool) -> str:
    what = events(objective)
    start = (
        f"The objective **{objective.title}** wants {percent(objective.target)} of {what} good over any "
        f"{objective.window.days} days; {percent(objective.budget)} may be bad. One is bad when "
        f"{bad_condition(objective)}."
    )
    if paged:
        return f"{start} Far more than that are bad **now**, and have been for long enough to matter: users notice."
    return (
        f"{start} For hours a little more than that have been bad. Hardly a user complains yet, but the budget "
        "will not last: it is work for this day, not for this night."
    )


def _urgency(objective: Objective, chosen: tuple[Tier, ...]) -> str:
    rows = [
        "| both windows | bad share above | times the sustainable rate | gone in the long window | all gone in |",
        "|---|---|---|---|---|",
    ]
    for tier in chosen:
        factor = tier.threshold / objective.budget
        gone = factor * SECONDS[tier.long] / objective.window.seconds
        rows.append(
            f"| {tier.short} and {tier.long} | {percent(tier.threshold)} | {_plain(factor)} | "
            f"{percent(gone)} | {span(_lasts(objective, tier))} |"
        )
    outage = span(objective.allowed_seconds())
    guards = "; ".join(
        f"more than {tier.least_short} bad in {tier.short} and {tier.least_long} in {tier.long}"
        for tier in chosen
    )
    return (
        "\n".join(rows)
        + f"\n\nIf everything fails, the budget of all {objective.window.days} days lasts {outage}. "
        + f"So that a few stray {events(objective)} call nobody, it also takes {guards}. "
        + "Your own figure: time left = remaining budget × window ÷ burn rate, both below."
    )


def _plain(factor: Decimal) -> str:
    return number(factor.quantize(Decimal("0.01")))


def _look(catalogue: Catalogue, objective: Objective, chosen: tuple[Tier, ...]) -> tuple[Step, ...]:
    long = chosen[0].long
    inside = f'service="{escape(catalogue.service)}", slo="{objective.name}"'
    slow = objective.threshold is not None
    steps = [
        Step(
            text="Is it still going on, and how fast? The burn rate now: 1 is sustainable.",
            code=f"{sli_ratio(catalogue, objective, '5m')} / {number(objective.budget)}",
            language="promql",
        ),
        Step(
            text=f"The same over {long}, and the share of the budget that is left (0 is spent, below 0 is broken).",
            code=f"{sli_ratio(catalogue, objective, long)} / {number(objective.budget)}\n"
            f"slo:error_budget_remaining:ratio{{{inside}}}",
            language="promql",
        ),
        Step(
            text="Where? The worst first: one instance alone is a broken machine, one label value alone is its code, "
            "all alike is something they share (database, network, overload).",
            code="\n".join(_breakdowns(catalogue, objective)),
            language="promql",
        ),
        first_look.youngest(catalogue),
        Step(
            text="Is the database pool full? Above 0.9, requests wait for a connection.",
            code=f'service:db_client_connection_utilization:ratio{{service="{escape(catalogue.service)}"}}',
            language="promql",
        ),
        first_look.processor(catalogue),
        first_look.log_lines(
            catalogue,
            "What do the slowest requests have in common?" if slow else "What do the errors say?",
            levels=("info", "warning", "error", "critical") if slow else ("error", "critical"),
            slowest=slow,
        ),
    ]
    return tuple(steps)


def _breakdowns(catalogue: Catalogue, objective: Objective) -> list[str]:
    metric = objective.metric
    bad_label = metric.label(objective.bad.label).prometheus if objective.bad is not None else ""
    dimensions = ["instance", *(name for name in metric.label_names if name != bad_label)]
    if objective.bad is None:
        buckets = selector(catalogue, metric, part="bucket")
        return [
            f"topk(5, histogram_quantile(0.95, sum by (le, {name}) (rate({buckets}[5m]))) >= 0)"
            for name in dimensions
        ]
    source = selector(
        catalogue,
        metric,
        part="count" if metric.kind is Kind.HISTOGRAM else "",
        matchers=(f'{bad_label}=~"{any_of(objective.bad.values)}"',),
    )
    return [f"topk(5, sum by ({name}) (rate({source}[5m])))" for name in dimensions]


_ERROR_CAUSES = (
    "A release: the trouble began within minutes of a process start.",
    "The database: pool full (DatabasePoolSaturated), connections refused, locked, a migration that runs.",
    "One bad instance: out of disk, memory or file descriptors; its siblings are well.",
    "Overload: the request rate on the board is far above that of yesterday at this hour.",
    "On a trial stack: a fault switched on for a drill is still on; `taskscope fault clear` ends it.",
)
_SLOW_CAUSES = (
    "Waiting for a database connection: utilization above 0.9, and every route that asks the database is slow.",
    "Processor: a process near one full core, often after a release or under more traffic.",
    "One slow query: a single route is slow; a missing index or a much larger table.",
    "A slow neighbour: the machine swaps or shares its processor; one instance alone is slow.",
    "On a trial stack: a fault switched on for a drill is still on; `taskscope fault clear` ends it.",
)


def _mitigate(catalogue: Catalogue, *, paged: bool) -> tuple[Step, ...]:
    first = "First make it stop, then find out why." if paged else "No hurry: find out why first."
    return (
        first_look.roll_back(
            f"{first} If a release is the suspect, go back to the one before; `NAME` as `docker compose ps` shows it."
        ),
        first_look.restart(
            "If one instance alone is bad, keep its last log lines and restart it; the proxy sends its requests to "
            "the others meanwhile."
        ),
        first_look.add_instance(
            "If all instances are busy and the database is not, add an instance; if the database is the limit, "
            "more instances make it worse: end the long query or shed load at the proxy instead."
        ),
        first_look.doctor(),
        Step(
            text=f"Not better after 30 minutes? Wake the next on call for `{catalogue.service}`: "
            "say what you saw in the steps above."
        ),
    )


def _resolves(chosen: tuple[Tier, ...], *, paged: bool) -> str:
    shorts = " and ".join(tier.short for tier in chosen)
    tail = " It fires on for 3 minutes, so that a flicker is not a second page." if paged else ""
    return (
        f"By itself, once the bad share over the short window of every tier ({shorts}) is below its threshold: "
        f"at the latest {chosen[-1].short} and 5 minutes after the last bad event, most often sooner.{tail} "
        "The budget that was spent comes back only as the days of the incident leave the window."
    )
