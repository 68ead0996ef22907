"""What was sent and what came back, so that it can be held against what Prometheus has counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Summary", "Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """sent: requests that were begun, `answered` and `unanswered` together. shed: steps left out.

    A step is left out when too many requests are in flight, or when its user cannot log in now.
    by_status: answers by status. by_route: answers by `METHOD template`. answers: by `METHOD template status`.
    """

    sent: int
    answered: int
    unanswered: int
    shed: int
    seconds: float
    by_status: dict[str, int] = field(default_factory=dict)
    by_route: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(
            {
                "sent": self.sent,
                "answered": self.answered,
                "unanswered": self.unanswered,
                "shed": self.shed,
                "seconds": round(self.seconds, 3),
                "by_status": self.by_status,
                "by_route": self.by_route,
                "answers": self.answers,
            },
            sort_keys=True,
        )


class Tally:
    """Counts while the load runs."""

    def __init__(self) -> None:
        self.shed = 0
        self.sent = 0
        self._unanswered = 0
        self._answers: Counter[tuple[str, str, int]] = Counter()

    def answered(self, method: str, template: str, status: int) -> None:
        """One answer came."""
        self._answers[method, template, status] += 1

    def unanswered(self) -> None:
        """One request met no answer."""
        self._unanswered += 1

    def summary(self, *, seconds: float) -> Summary:
        """All that was counted so far."""
        statuses: Counter[str] = Counter()
        routes: Counter[str] = Counter()
        for (method, template, status), count in self._answers.items():
            statuses[str(status)] += count
            routes[f"{method} {template}"] += count
        return Summary(
            sent=self.sent,
            answered=sum(self._answers.values()),
            unanswered=self._unanswered,
            shed=self.shed,
            seconds=seconds,
            by_status=dict(sorted(statuses.items())),
            by_route=dict(sorted(routes.items())),
            answers={
                f"{method} {template} {status}": count
                for (method, template, status), count in sorted(self._answers.items())
            },
        )
