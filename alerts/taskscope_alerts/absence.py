"""What is not there: targets that do not answer, metrics that ceased though the target is up, and the watchdog.

Whoever is judged by an objective pages when all of its targets are down or its metrics are gone, since users are
hurt or nobody would see it; what serves no user directly, such as the log shipper with its spool, is a ticket.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue, Kind, Metric, Target
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice import absent as advice
from taskscope_alerts.expression import all_of, binary
from taskscope_alerts.rule import WATCHDOG, Alert
from taskscope_alerts.severity import Severity

__all__ = ["absence_alerts", "heartbeat", "judged"]

_DOWN_HOLD: Final = "1m"
_ONE_DOWN_HOLD: Final = "2m"
_ABSENT_HOLD: Final = "3m"
_SERVICE_TARGET: Final = "service"


def judged(catalogue: Catalogue) -> tuple[Target, ...]:
    """The targets whose metrics an objective judges, and the service itself: those that page."""
    names = {objective.metric.target for objective in catalogue.objectives} | {_SERVICE_TARGET}
    return tuple(target for target in catalogue.targets if target.name in names)


def heartbeat(catalogue: Catalogue, target: Target) -> Metric | None:
    """A metric without labels that a sound process of the target always shows, or None."""
    for metric in catalogue.all_metrics:
        if metric.target == target.name and not metric.labels:
            return metric
    return None


def absence_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about something that is missing, and the watchdog."""
    alerts = [_all_down(catalogue, target) for target in judged(catalogue)]
    alerts += [_one_down(catalogue, target) for target in catalogue.targets]
    for target in catalogue.targets:
        metric = heartbeat(catalogue, target)
        if metric is not None:
            alerts.append(_metrics_absent(catalogue, target, metric))
    return (*alerts, _watchdog(catalogue))


def _labels(
    catalogue: Catalogue, subsystem: str, target: Target | None = None
) -> tuple[tuple[str, str], ...]:
    job = (("job", target.job),) if target is not None else ()  # tells the rules of one name apart
    return (("service", catalogue.service), ("subsystem", subsystem), *job)


def _up(target: Target) -> str:
    return f'up{{job="{escape(target.job)}"}}'


def _all_down(catalogue: Catalogue, target: Target) -> Alert:
    up = _up(target)
    return Alert(
        name="AllTargetsDown",
        expr=binary(f"max by (job) ({up}) == 0", "or", f"absent({up})"),
        severity=Severity.PAGE,
        labels=_labels(catalogue, "http", target),
        hold=_DOWN_HOLD,
        summary=f"{catalogue.service}: no instance of {target.job} answers",
        description=(
            f"Prometheus has reached no instance of job {target.job} for a minute. Users are most likely "
            "served nothing, and nothing is measured meanwhile."
        ),
        runbook=advice.all_down(catalogue, judged(catalogue)),
    )


def _one_down(catalogue: Catalogue, target: Target) -> Alert:
    return Alert(
        name="TargetDown",
        expr=f"{_up(target)} == 0",
        severity=Severity.TICKET,
        labels=_labels(catalogue, "self", target),
        hold=_ONE_DOWN_HOLD,
        summary=f"{catalogue.service}: {{{{ $labels.instance }}}} of {target.job} does not answer",
        description=(
            f"Prometheus has not reached {{{{ $labels.instance }}}} of job {target.job} for two "
            "minutes. "
            "What it would have measured is missing from every board and rule."
        ),
        runbook=advice.one_down(catalogue),
    )


def _metrics_absent(catalogue: Catalogue, target: Target, metric: Metric) -> Alert:
    series = selector(catalogue, metric, part="count" if metric.kind is Kind.HISTOGRAM else "")
    name = series.partition("{")[0]
    pages = target in judged(catalogue)
    return Alert(
        name="MetricsAbsent",
        expr=all_of(f"absent({series})", f"on (job) max by (job) ({_up(target)}) == 1"),
        severity=Severity.PAGE if pages else Severity.TICKET,
        labels=_labels(catalogue, "self", target),
        hold=_ABSENT_HOLD,
        summary=f"{catalogue.service}: {target.job} is up but shows no {name}",
        description=(
            f"Job {target.job} has answered its scrapes for 3 minutes without the series {name}, "
            "which a sound process always shows. No objective can be judged on what is not measured."
        ),
        runbook=advice.metrics_absent(catalogue),
    )


def _watchdog(catalogue: Catalogue) -> Alert:
    return Alert(
        name=WATCHDOG,
        expr="vector(1)",
        severity=None,
        labels=_labels(catalogue, "self"),
        summary=f"{catalogue.service}: alerting works",
        description=(
            "This alert always fires. When it stops arriving, Prometheus, Alertmanager or the way from them to you "
            "is broken, and no other alert can reach you."
        ),
        runbook=advice.watchdog(catalogue),
    )
