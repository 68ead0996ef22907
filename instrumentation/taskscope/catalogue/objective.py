"""An objective and its error budget, in Decimal: what share of events must be good, over how long.

Read by the generators of rules, boards and runbooks. Source of the words: Google SRE Workbook, ch. 2 and 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from taskscope.catalogue.metric import Kind, Metric
from taskscope.errors import MetricError, ObjectiveError

__all__ = ["Match", "Objective", "Window"]

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_MAX_DAYS: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The rolling time over which an objective is judged, in whole days."""

    days: int

    def __post_init__(self) -> None:
        if not 1 <= self.days <= _MAX_DAYS:
            raise ObjectiveError(f"window of {self.days} days: take 1 to {_MAX_DAYS}")

    @property
    def prometheus(self) -> str:
        """As a Prometheus duration: `30d`."""
        return f"{self.days}d"

    @property
    def seconds(self) -> int:
        return self.days * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Events whose `label` has one of `values`."""

    label: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The share `target` of a metric's events must be good over `window`.

    An event is bad where `bad` matches (availability), or where it took longer than `threshold` in the
    metric's base unit (latency, histograms only): exactly one of the two is given.
    target: above 0 and below 1, as a Decimal made from a string: Decimal("0.999").
    Raises ObjectiveError.
    """

    name: str
    title: str
    metric: Metric
    target: Decimal
    window: Window
    bad: Match | None = None
    threshold: Decimal | None = None

    def __post_init__(self) -> None:
        if not _SLUG.match(self.name):
            raise ObjectiveError(
                f"objective {self.name!r} is not a lower-case slug; write it as request-latency"
            )
        if not Decimal(0) < self.target < Decimal(1):
            raise ObjectiveError(
                f"{self.name}: target {self.target} is not between 0 and 1; write 99.9 % as 0.999"
            )
        if (self.bad is None) == (self.threshold is None):
            raise ObjectiveError(
                f"{self.name}: give either bad=Match(…) or threshold=Decimal(…), not both or none"
            )
        if self.metric.kind is Kind.GAUGE:
            raise ObjectiveError(
                f"{self.name}: {self.metric.name} is a gauge and counts no events; take a counter"
            )
        if self.bad is not None:
            self._check_match(self.bad)
        if self.threshold is not None and (
            self.metric.kind is not Kind.HISTOGRAM or self.threshold <= 0
        ):
            raise ObjectiveError(
                f"{self.name}: a threshold needs a histogram and a positive bound; see {self.metric.name}"
            )

    def _check_match(self, bad: Match) -> None:
        try:
            label = self.metric.label(bad.label)
        except MetricError as error:
            raise ObjectiveError(f"{self.name}: {error}") from error
        unknown = sorted(set(bad.values) - set(label.values)) if label.values else []
        if unknown or not bad.values:
            raise ObjectiveError(
                f"{self.name}: {self.metric.name} declares no {bad.label} {', '.join(unknown)}; "
                f"it declares {', '.join(label.values)}"
            )

    @property
    def budget(self) -> Decimal:
        """The share of events that may be bad: 1 - target, exactly."""
        return 1 - self.target

    def allowed_seconds(self) -> Decimal:
        """How long everything could fail before the whole window's budget is spent, in seconds."""
        return self.budget * self.window.seconds
