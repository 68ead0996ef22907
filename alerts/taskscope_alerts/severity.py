"""How an alert reaches a person. Two words, and no third."""

from __future__ import annotations

from enum import Enum

__all__ = ["Severity"]


class Severity(Enum):
    """`page` wakes somebody now, `ticket` waits for the working day."""

    PAGE = "page"
    TICKET = "ticket"
