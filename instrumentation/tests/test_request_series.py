"""Requests that were noted are written together as each would have been alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from taskscope.requests.series import _fallen

_BOUNDS = st.lists(st.sampled_from([0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0]), unique=True).map(
    lambda bounds: tuple(sorted(bounds))
)
_VALUES = st.lists(
    st.floats(0, 10) | st.sampled_from([0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0]), min_size=1
)


@given(_BOUNDS, _VALUES)
def test_values_that_are_counted_together_fall_as_each_would_alone(
    bounds: tuple[float, ...], values: list[float]
) -> None:
    alone = Counter(bisect_left(bounds, value) for value in values)
    together = _fallen(bounds, sorted(values))
    assert dict(together) == alone
    assert len(together) == len(alone)
