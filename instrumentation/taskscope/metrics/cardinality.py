"""How many label sets there may be, and what the others are folded into: memory that no caller can exceed.

Read by `instruments`. What is counted is label sets: a histogram's counts once, whatever its number of buckets,
and the sets that take what was folded count as the others do. So a metric never has more than MAX_LABEL_SETS
and a process never more than MAX_SERIES, and yet each metric always has a place for what overflows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Final

from taskscope.catalogue import Kind, Metric
from taskscope.catalogue.metric import OVERFLOW
from taskscope.metrics.store import Series

__all__ = ["MAX_LABEL_SETS", "MAX_SERIES", "MAX_VALUE", "Capacity", "LabelSets", "lines", "texts"]

MAX_LABEL_SETS: Final = 1_000
"""The most label sets one metric has in a process, those with `__overflow__` included."""
MAX_SERIES: Final = 10_000
"""The most label sets all metrics of a process have together; one of each metric is set aside for its overflow."""
MAX_VALUE: Final = 256
"""The longest label value, in characters; a longer one is folded."""

_MOST_SPILLED: Final = 100


class Capacity:
    """The label sets that all metrics of a process may still add; used with the store's lock held.

    lines: the series that the process exposes, as Prometheus counts them.
    growing: the lock under which a series is being added now; who asks for another meanwhile, under the same lock,
    came in by the garbage collector or a signal.
    """

    __slots__ = ("free", "growing", "lines")

    def __init__(self, most: int = MAX_SERIES) -> None:
        self.free = most
        self.lines = 0
        self.growing: object = None


class LabelSets:
    """Which label sets of one metric there are; used with the store's lock held.

    Folding has three steps, and stops at the first for which there is room: each value held to its own label's
    bound, then all labels folded whose values are not listed, then all labels folded.
    """

    __slots__ = (
        "_capacity",
        "_caps",
        "_limits",
        "_metric",
        "_seen",
        "_spills",
        "_taken",
        "overflow",
    )

    def __init__(self, metric: Metric, capacity: Capacity) -> None:
        self._metric = metric
        self._capacity = capacity
        self._seen: list[set[str]] = [set(label.values) for label in metric.labels]
        self._taken = 0
        listed = [len(label.values) + 1 for label in metric.labels if label.values]
        self._caps = tuple([-1 if label.values else label.cap for label in metric.labels])
        self._spills = 0 < len(listed) < len(metric.labels)
        spilled = min(prod(listed), _MOST_SPILLED) if self._spills else 1
        self._limits = (MAX_LABEL_SETS - spilled, MAX_LABEL_SETS - 1, MAX_LABEL_SETS)
        self.overflow = (OVERFLOW,) * len(metric.labels)
        capacity.free -= 1

    def listed(self) -> Iterator[tuple[str, ...]]:
        """The label sets that are known before they are used: all of them, or none if they are too many."""
        values = [label.values for label in self._metric.labels]
        room = min(self._limits[0], self._capacity.free) if values else 1
        if 0 < prod(map(len, values)) <= room:
            yield from product(*values)

    def folded(self, values: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """What the values may be kept as, the best first, and how far that is folded: 0, 1 or 2."""
        within = tuple(
            [
                value if value in seen or len(seen) < cap else OVERFLOW
                for cap, seen, value in zip(self._caps, self._seen, values, strict=True)
            ]
        )
        yield 0, within
        if self._spills:
            yield (
                1,
                tuple(
                    [v if cap < 0 else OVERFLOW for cap, v in zip(self._caps, within, strict=True)]
                ),
            )
        yield 2, self.overflow

    def has_room(self, step: int) -> bool:
        """Whether there may be one more set, so far folded."""
        if self._taken >= self._limits[step]:
            return False
        return step == 2 or self._capacity.free > 0 or not self._metric.labels

    def take(self, step: int, values: tuple[str, ...], more_lines: int) -> None:
        """There is this set from now on."""
        self._taken += 1
        self._capacity.lines += more_lines
        if step < 2 and self._metric.labels:
            self._capacity.free -= 1
        for label, seen, value in zip(self._metric.labels, self._seen, values, strict=True):
            if not label.values and value != OVERFLOW:
                seen.add(value)


def lines(series: Series) -> int:
    """How many series, as Prometheus counts them, one of ours is exposed as."""
    if series.metric.kind is not Kind.HISTOGRAM:
        return 1
    # The buckets and the one above all, the count, and the sum, which only rises if no value is negative.
    return len(series.bounds) + 2 + (not series.bounds or series.bounds[0] >= 0)


def texts(values: tuple[object, ...]) -> tuple[str, ...]:
    """The values as labels bear them: text that UTF-8 can write; one that is too long or has no text is folded."""
    return tuple([_text(value) for value in values])


def _text(value: object) -> str:
    try:
        # Of a kind of text that is an enumeration too, the text: it is also what its hash says.
        text = str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - it is the caller's code, and a label never fails a request
        return OVERFLOW
    if len(text) > MAX_VALUE:
        return OVERFLOW
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
