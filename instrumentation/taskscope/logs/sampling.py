"""Which access lines are written: all that tell of trouble, and a share of those that went well.

What is written of a share bears its weight: how many such requests it stands for, so that counts can be scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

from taskscope.context import RequestContext
from taskscope.ended import Ended

__all__ = ["AccessSample"]

_WELL: Final = "ok"


class AccessSample:
    """The sample of one pipeline's access lines; its share may change at any time.

    share: of requests that went well, 0 to 1. slow_s: one that took longer is always kept. chance: a number from
    0 up to 1, evenly spread.
    """

    __slots__ = ("_chance", "_slow_s", "share", "text")

    def __init__(
        self, *, share: float, slow_s: float = 1.0, chance: Callable[[], float] = random
    ) -> None:
        self._slow_s = slow_s
        self._chance = chance
        self.share = 1.0
        self.text = ""
        self.take(share)

    def take(self, share: float) -> None:
        """The share is this one from now on. text: the weight as a field of the line, empty if all are kept."""
        self.text = "" if share >= 1.0 or share <= 0.0 else f',"sample.weight":{1.0 / share!r}'
        self.share = share

    def keeps(self, request: RequestContext, ended: Ended) -> bool:
        """Whether the request's line is written. One whose trace is kept always is, so the trace has its line."""
        return (
            self.share >= 1.0 or ended.outcome != _WELL or self.keeps_good(request, ended.seconds)
        )

    def keeps_good(self, request: RequestContext, seconds: float) -> bool:
        """The same of a request that went well."""
        share = self.share
        return share >= 1.0 or request.sampled or seconds > self._slow_s or self._chance() < share

    def weight(self, request: RequestContext, ended: Ended) -> float:
        """How many requests a line that was kept stands for: 1 where it would have been kept in any case."""
        certain = ended.outcome != _WELL or request.sampled or ended.seconds > self._slow_s
        return 1.0 if certain or not 0.0 < self.share < 1.0 else 1.0 / self.share

    def weighed(self, request: RequestContext, seconds: float) -> str:
        """The weight of a kept line of a request that went well, as a field; empty where it is 1."""
        return "" if request.sampled or seconds > self._slow_s else self.text
