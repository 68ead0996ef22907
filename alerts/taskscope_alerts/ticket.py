"""An alert about one metric: most often a ticket, something that somebody must mend by day."""

from __future__ import annotations

from taskscope.catalogue import Catalogue, Metric
from taskscope_alerts.rule import Alert
from taskscope_alerts.runbook import Runbook
from taskscope_alerts.severity import Severity

__all__ = ["ticket"]


def ticket(
    catalogue: Catalogue,
    metric: Metric,
    *,
    name: str,
    expr: str,
    summary: str,
    description: str,
    runbook: Runbook,
    hold: str = "",
    board: str = "oncall",
    severity: Severity = Severity.TICKET,
) -> Alert:
    """The alert about `metric`, in its subsystem. Raises RuleError."""
    return Alert(
        name=name,
        expr=expr,
        severity=severity,
        labels=(("service", catalogue.service), ("subsystem", metric.subsystem)),
        hold=hold,
        summary=f"{catalogue.service}: {summary}",
        description=description,
        runbook=runbook,
        board=board,
    )
