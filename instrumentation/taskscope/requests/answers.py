"""What is kept of a route's good answers, so that the next one of its kind costs a look and no more.

Read by the outermost layer, which finds it by what the router selected, the status and the method.
"""

from __future__ import annotations

from typing import Final

from taskscope.requests.fields import METHODS
from taskscope.requests.series import Prepared, RequestSeries

__all__ = ["MOST_KEPT", "Answer", "Answers"]

MOST_KEPT: Final = 16_384
"""As many kinds of answers are kept at most; others are looked up for each request."""


class Answer:
    """One kind of answer that ended well: a route's, to one method, with one status.

    values: where such a request is noted, None where it is written at once. prepared: the series it moves, or None
    without metrics. text: what its access line says of its kind, empty where only the chain can write it.
    """

    __slots__ = ("method", "prepared", "route", "status", "text", "values")

    def __init__(
        self,
        kind: tuple[str, str, int],
        values: list[float] | None,
        prepared: Prepared | None,
        text: bytes,
    ) -> None:
        self.method, self.route, self.status = kind
        self.values = values
        self.prepared = prepared
        self.text = text


class Answers:
    """Makes the answers of one application."""

    __slots__ = ("_made", "_series")

    def __init__(self, series: RequestSeries | None) -> None:
        self._series = series
        self._made = 0

    def of(self, kind: tuple[str, str, int], text: bytes) -> Answer | None:
        """The answer to be kept of a method, a route and a status.

        None where its series are not at hand, its method is unknown, or there are too many.

        The body of an answer to HEAD is not sent; so few of them are not worth a question for all others.
        """
        method, route, status = kind
        if method == "HEAD" or method not in METHODS or self._made >= MOST_KEPT:
            return None
        values = prepared = None
        if self._series is not None:
            prepared = self._series.at_hand((method, route, status, "ok"))
            if prepared is None:
                return None
            if self._series.noted is not None:
                values = self._series.noted.get(kind)
        self._made += 1
        return Answer(kind, values, prepared, text)
