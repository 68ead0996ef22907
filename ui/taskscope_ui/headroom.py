"""How near the service is to its limits: readings against limits, and the one sentence on top. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from taskscope_ui.measures import TRAFFIC, Measure
from taskscope_ui.wording import percent

__all__ = ["Level", "Reading", "Verdict", "level_of", "verdict"]

WATCH_FROM: Final = 0.7
"""The share of a limit from which the page says that it comes near."""


class Level(Enum):
    """How the page colours a share of a limit."""

    ROOM = "room"
    NEAR = "near"
    OVER = "over"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measure now. None stands for what nobody measured or promised."""

    measure: Measure
    value: float | None
    limit: float | None

    @property
    def used(self) -> float | None:
        """The share of the limit that is used: 1 is the limit itself."""
        if self.value is None or not self.limit:
            return None
        return max(0.0, self.value / self.limit)

    @property
    def shown(self) -> str:
        """The value as the page writes it."""
        return "no data" if self.value is None else self.measure.shown(self.value)

    @property
    def against(self) -> str:
        """The share and the limit: `2 % of the limit, 1,000/s`."""
        if self.limit is None:
            return "no limit was promised"
        if self.used is None:
            return f"limit {self.measure.shown(self.limit)}"
        return f"{share(self.used)} of the limit, {self.measure.shown(self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the page says first."""

    level: Level
    sentence: str


def share(used: float) -> str:
    """A share of a limit in whole percent; `less than 1 %` where it is not nothing."""
    return "less than 1 %" if 0 < used < 0.01 else percent(round(used, 2))


def level_of(used: float | None) -> Level:
    """The colour of a share of a limit."""
    if used is None:
        return Level.UNKNOWN
    if used >= 1:
        return Level.OVER
    return Level.NEAR if used >= WATCH_FROM else Level.ROOM


def verdict(readings: Sequence[Reading]) -> Verdict:
    """The sentence on top of the page: the load first, then the limit that is nearest or crossed."""
    known = sorted(((r.used, r) for r in readings if r.used is not None), key=lambda pair: -pair[0])
    if not known:
        return Verdict(level=Level.UNKNOWN, sentence="Nothing is measured yet.")
    most, nearest = known[0]
    level = level_of(most)
    over = [r for used, r in known if used >= 1]
    return Verdict(level=level, sentence=f"{_load(readings)}{_nearest(level, nearest, over)}.")


def _load(readings: Sequence[Reading]) -> str:
    used = next((r.used for r in readings if r.measure is TRAFFIC), None)
    if used is None:
        return ""
    if used >= 1:
        return f"The service carries {share(used)} of what it was sized for; "
    return f"The service is at {share(used)} of what it can carry; "


def _nearest(level: Level, nearest: Reading, over: Sequence[Reading]) -> str:
    if level is not Level.OVER:
        if nearest.measure is TRAFFIC:
            return "no other limit is nearer"
        return f"nearest limit: {nearest.measure.noun}, {share(nearest.used or 0.0)}"
    parts = [f"{r.measure.noun} ({r.shown}, limit {r.measure.shown(r.limit or 0.0)})" for r in over]
    return f"over its limit: {' and '.join(parts)}"
