"""What a rule is: a recorded series, an alert, and the group they are evaluated in, checked at birth.

Read by the modules that make rules and by `render`. An alert brings its runbook with it, so none lacks one.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from taskscope.errors import TaskscopeError
from taskscope_alerts.runbook import Runbook
from taskscope_alerts.severity import Severity

__all__ = ["STATES", "WATCHDOG", "Alert", "Group", "Recording", "RuleError"]

WATCHDOG: Final = "Watchdog"
"""The alert that always fires. It is neither page nor ticket: it bears no severity and is routed by its name."""

STATES: Final = (
    "Absent",
    "Blocked",
    "Burn",
    "Delayed",
    "Disconnected",
    "Down",
    "Dropped",
    "Exhausted",
    "Failing",
    "Overflow",
    "Refused",
    "Saturated",
    "Skipped",
    "Timeouts",
)
"""The last word of an alert's name: the state its subject is in."""

_RECORDED = re.compile(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*:[a-z][a-z0-9_]*\Z")
_ALERT = re.compile(rf"[A-Z][A-Za-z0-9]*(?:{'|'.join(STATES)})\Z")
_DURATION = re.compile(r"[1-9][0-9]*[smhd]\Z")
_VALUE = re.compile(r"\{\{[^}]*\$value[^}]*\}\}(?P<after>[^{]*)")
_WITH_UNIT = ("humanizePercentage", "humanizeDuration")

Labels = tuple[tuple[str, str], ...]


class RuleError(TaskscopeError):
    """For the developer who writes a rule: a name, label, duration or annotation is not as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A series that Prometheus computes at each evaluation. Raises RuleError.

    name: `level:metric:operation`. expr: PromQL. labels: what is set on the result, over its own labels.
    """

    name: str
    expr: str
    labels: Labels = ()

    def __post_init__(self) -> None:
        if not _RECORDED.match(self.name):
            raise RuleError(f"recording {self.name!r} is not level:metric:operation; rename it")
        _check_expr(self.name, self.expr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A condition somebody must hear of, and what to do about it. Raises RuleError.

    name: subject and state in CamelCase. severity: None for the watchdog alone.
    hold, keep: Prometheus durations, how long it must hold before it fires and how long it fires on; or empty.
    summary: one line without a full stop. description: sentences, every `$value` with its unit.
    board: slug of the board to look at.
    """

    name: str
    expr: str
    severity: Severity | None
    labels: Labels
    summary: str
    description: str
    runbook: Runbook
    hold: str = ""
    keep: str = ""
    board: str = "oncall"

    def __post_init__(self) -> None:
        if self.name != WATCHDOG and not _ALERT.match(self.name):
            raise RuleError(
                f"alert {self.name!r} is not a CamelCase subject with one of the states "
                f"{', '.join(STATES)}; rename it"
            )
        if (self.severity is None) != (self.name == WATCHDOG):
            raise RuleError(
                f"{self.name}: severity is {self.severity}; take PAGE or TICKET, and none for {WATCHDOG} alone"
            )
        _check_expr(self.name, self.expr)
        for what, duration in (("hold", self.hold), ("keep", self.keep)):
            if duration and not _DURATION.match(duration):
                raise RuleError(
                    f"{self.name}: {what} {duration!r} is no Prometheus duration; write it as 5m"
                )
        self._check_labels()
        self._check_annotations()

    def _check_labels(self) -> None:
        names = [name for name, _ in self.labels]
        if "severity" in names or "alertname" in names:
            raise RuleError(f"{self.name}: severity and alertname are set by its fields; drop them")
        missing = [name for name in ("service", "subsystem") if name not in names]
        if missing or len(set(names)) != len(names):
            raise RuleError(
                f"{self.name}: labels {names}; give service and subsystem, each label once"
            )

    def _check_annotations(self) -> None:
        if not self.summary or "\n" in self.summary or self.summary.endswith("."):
            raise RuleError(
                f"{self.name}: summary {self.summary!r} is no headline; write one line without a full stop"
            )
        if not self.description.endswith("."):
            raise RuleError(
                f"{self.name}: description {self.description!r} is no sentence; write it out"
            )
        for found in _VALUE.finditer(f"{self.summary}\n{self.description}"):
            united = any(word in found.group(0) for word in _WITH_UNIT)
            if not united and not re.match(r" (?:%|[a-z]+)", found.group("after")):
                raise RuleError(
                    f"{self.name}: {found.group(0).strip()!r} shows a number without its unit; "
                    f"use {' or '.join(_WITH_UNIT)}, or let a word for the unit follow"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules evaluated one after another, `interval_s` seconds apart. Raises RuleError."""

    name: str
    interval_s: int
    rules: tuple[Recording | Alert, ...]

    def __post_init__(self) -> None:
        if self.interval_s < 1 or not self.rules:
            raise RuleError(
                f"group {self.name}: {len(self.rules)} rules every {self.interval_s} s; "
                "give at least one of each"
            )
        records = [(rule.name, rule.labels) for rule in self.rules if isinstance(rule, Recording)]
        twice = [name for (name, _), count in Counter(records).items() if count > 1]
        if twice:
            raise RuleError(
                f"group {self.name}: {', '.join(twice)} is recorded twice; drop one or tell them apart by a label"
            )

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The group's alerts, in their order."""
        return tuple(rule for rule in self.rules if isinstance(rule, Alert))

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The group's recordings, in their order."""
        return tuple(rule for rule in self.rules if isinstance(rule, Recording))


def _check_expr(name: str, expr: str) -> None:
    if not expr.strip() or expr != expr.strip() or "\t" in expr:
        raise RuleError(
            f"{name}: expr {expr!r} is empty or has loose white space; write the PromQL alone"
        )
