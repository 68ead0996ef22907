"""All rules of one service in their groups, and each alert under its name.

A burn alert stands in the group that records what it reads, after it: rules of a group are evaluated in order, so it
judges this evaluation's values and not the last one's.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue
from taskscope_alerts.absence import absence_alerts
from taskscope_alerts.burnrate import fast_burn, slow_burn
from taskscope_alerts.loglines import log_alerts
from taskscope_alerts.recording import (
    FAST_INTERVAL_S,
    service_recordings,
    sli_recordings,
    slow_recordings,
)
from taskscope_alerts.rule import Alert, Group, RuleError
from taskscope_alerts.saturation import saturation_alerts
from taskscope_alerts.telemetry import telemetry_alerts

__all__ = ["SLOW_INTERVAL_S", "alerts_by_name", "groups"]

SLOW_INTERVAL_S: Final = 30


def groups(catalogue: Catalogue) -> tuple[Group, ...]:
    """Every rule of the catalogue's service, groups and rules in a fixed order."""
    service, objectives = catalogue.service, catalogue.objectives
    made = [
        Group(
            name=f"{service}-http",
            interval_s=FAST_INTERVAL_S,
            rules=service_recordings(catalogue),
        )
    ]
    for objective in objectives:
        made += [
            Group(
                name=f"{service}-{objective.name}",
                interval_s=FAST_INTERVAL_S,
                rules=(*sli_recordings(catalogue, objective), fast_burn(catalogue, objective)),
            ),
            Group(
                name=f"{service}-{objective.name}-slow",
                interval_s=SLOW_INTERVAL_S,
                rules=(*slow_recordings(catalogue, objective), slow_burn(catalogue, objective)),
            ),
        ]
    for subject, alerts in (
        ("absence", absence_alerts(catalogue)),
        ("saturation", saturation_alerts(catalogue)),
        ("logs", log_alerts(catalogue)),
        ("telemetry", telemetry_alerts(catalogue)),
    ):
        made.append(
            Group(name=f"{service}-alerts-{subject}", interval_s=FAST_INTERVAL_S, rules=alerts)
        )
    return tuple(made)


def alerts_by_name(catalogue: Catalogue) -> dict[str, tuple[Alert, ...]]:
    """The alerts of each name; several rules of one name share one runbook. Raises RuleError where they do not."""
    named: dict[str, tuple[Alert, ...]] = {}
    for group in groups(catalogue):
        for alert in group.alerts:
            named[alert.name] = (*named.get(alert.name, ()), alert)
    for name, alerts in named.items():
        if any(alert.runbook != alerts[0].runbook for alert in alerts):
            raise RuleError(
                f"{catalogue.service}: two alerts are named {name} and mean different things; "
                "rename an objective"
            )
    return named
