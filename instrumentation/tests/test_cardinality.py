"""Bounds on label sets: none is exceeded whatever is asked for, and what overflows always has a place."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter as Tally
from enum import Enum
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.catalogue import Catalogue, Kind, Label, Metric
from taskscope.catalogue.builtin import OVERFLOWED, SERIES
from taskscope.catalogue.metric import OVERFLOW
from taskscope.metrics.cardinality import MAX_LABEL_SETS, MAX_SERIES, MAX_VALUE, lines
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.store import MemoryStore, Series
from taskscope.testing.metrics import value


def _visits(name: str = "shop.visits", *labels: Label, kind: Kind = Kind.COUNTER) -> Metric:
    return Metric(
        name=name,
        kind=kind,
        unit="s" if kind is Kind.HISTOGRAM else "{visit}",
        help="Visits.",
        owner="shop",
        labels=labels or (Label("user", cap=10**7, bounded_by="nothing at all"),),
    )


VISITS = _visits()
BY_RESULT = _visits(
    "shop.results",
    Label("page", cap=10**6, bounded_by="the pages"),
    Label("result", values=("good", "bad")),
)


def _instruments(*metrics: Metric, **options: object) -> Instruments:
    return Instruments(Catalogue(service="shop", metrics=metrics), **options)  # type: ignore[arg-type] # by name


def _sets(instruments: Instruments) -> Tally[str]:
    return Tally(reading.series.metric.name for reading in instruments.store.readings())


def test_a_metric_has_never_more_than_its_thousand_label_sets() -> None:
    instruments = _instruments(VISITS)
    for number in range(5 * MAX_LABEL_SETS):
        instruments.counter(VISITS).inc(user=f"u{number}")
    assert _sets(instruments)[VISITS.name] == MAX_LABEL_SETS
    assert value(instruments.registry, VISITS) == 5 * MAX_LABEL_SETS


def test_a_full_metric_folds_the_label_that_ran_away_and_keeps_the_listed_one() -> None:
    instruments = _instruments(BY_RESULT)
    for number in range(2 * MAX_LABEL_SETS):
        instruments.counter(BY_RESULT).inc(page=f"p{number}", result="bad")
    folded = value(instruments.registry, BY_RESULT, page=OVERFLOW, result="bad")
    assert folded == value(instruments.registry, OVERFLOWED, label="page") > MAX_LABEL_SETS
    assert value(instruments.registry, OVERFLOWED, label="result") == 0


def test_a_process_has_never_more_than_ten_thousand_and_each_metric_keeps_its_overflow() -> None:
    many = tuple(_visits(f"shop.visits{chr(97 + number)}") for number in range(15))
    instruments = _instruments(*many)
    for metric in many:
        for number in range(MAX_LABEL_SETS + 1):
            instruments.counter(metric).inc(user=f"u{number}")
    assert sum(_sets(instruments).values()) <= MAX_SERIES
    counts: Tally[str] = Tally()
    overflown = set()
    for reading in instruments.store.readings():
        counts[reading.series.metric.name] += int(reading.cells[0])
        if reading.series.values == (OVERFLOW,):
            overflown.add(reading.series.metric.name)
    assert {counts[metric.name] for metric in many} == {MAX_LABEL_SETS + 1}
    assert overflown == {metric.name for metric in many}


def test_more_combinations_of_listed_values_than_fit_do_not_start_at_zero_and_stay_bounded() -> (
    None
):
    listed = tuple(f"v{number}" for number in range(40))
    wide = _visits("shop.wide", Label("one", values=listed), Label("other", values=listed))
    instruments = _instruments(wide)
    assert _sets(instruments)[wide.name] == 0
    for one, other in itertools.product(listed, listed):
        instruments.counter(wide).inc(one=one, other=other)
    assert _sets(instruments)[wide.name] == MAX_LABEL_SETS
    assert value(instruments.registry, wide) == 1_600


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.sampled_from(["good", "bad", "odd", OVERFLOW])),
        max_size=300,
    )
)
def test_every_count_is_in_exactly_one_series_whatever_the_labels(
    asked: list[tuple[str, str]],
) -> None:
    small = _visits(
        "shop.small",
        Label("page", cap=7, bounded_by="seven pages"),
        Label("result", values=("good", "bad")),
    )
    instruments = _instruments(small)
    for page, result in asked:
        instruments.counter(small).inc(page=page, result=result)
    readings = [r for r in instruments.store.readings() if r.series.metric == small]
    assert sum(reading.cells[0] for reading in readings) == len(asked)
    assert len({reading.series.values[0] for reading in readings} - {OVERFLOW}) <= 7
    assert {reading.series.values[1] for reading in readings} <= {"good", "bad", OVERFLOW}


def test_tens_of_thousands_of_new_values_are_cheap_and_take_no_memory() -> None:
    instruments = _instruments(VISITS)
    visits = instruments.counter(VISITS)
    for number in range(MAX_LABEL_SETS + 1):  # the last one folds, and is logged
        visits.inc(user=f"u{number}")
    tracemalloc.start()
    began = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        visits.at((f"new{number}",)).inc()
    grown = tracemalloc.get_traced_memory()[0] - began
    tracemalloc.stop()
    started = perf_counter()
    for number in range(50_000):
        visits.at((f"other{number}",))
    each = (perf_counter() - started) / 50_000
    assert grown < 256 * 1024  # Python keeps 2,000 small tuples at hand
    assert each < 50e-6  # about 5 µs on a machine of its own; this one is shared
    assert _sets(instruments)[VISITS.name] == MAX_LABEL_SETS


def test_a_value_that_is_too_long_is_folded() -> None:
    instruments = _instruments(VISITS)
    instruments.counter(VISITS).inc(user="x" * MAX_VALUE)
    instruments.counter(VISITS).inc(user="x" * (MAX_VALUE + 1))
    assert value(instruments.registry, VISITS, user="x" * MAX_VALUE) == 1
    assert value(instruments.registry, VISITS, user=OVERFLOW) == 1


class _Silent:
    def __str__(self) -> str:
        raise RuntimeError("planted")


class _Colour(str, Enum):  # noqa: UP042 - its str() is not its text, as StrEnum's is
    RED = "red"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (7, "7"),
        (None, "None"),
        (["a"], "['a']"),
        (_Colour.RED, "red"),
        ("\ud800", "?"),
        ("\u00fc\U0001f600", "\u00fc\U0001f600"),
        (_Silent(), OVERFLOW),
    ],
)
def test_whatever_is_given_as_a_value_becomes_text_that_can_be_exposed(
    given: object, kept: str
) -> None:
    instruments = _instruments(VISITS)
    for _ in range(2):
        instruments.counter(VISITS).inc(user=given)  # type: ignore[arg-type] # as it happens
    assert value(instruments.registry, VISITS, user=kept) == 2
    assert value(instruments.registry, VISITS) == 2


class _Small(MemoryStore):
    """A store with room for so many series."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def allocate(self, series: Series) -> int | None:
        if self.room <= 0:
            return None
        self.room -= 1
        return super().allocate(series)


def test_a_full_store_folds_and_then_goes_on_without_what_it_has_no_room_for() -> None:
    store = _Small(10_000)
    instruments = _instruments(VISITS, BY_RESULT, store=store)
    instruments.counter(VISITS).inc(user="first")
    store.room = 1
    instruments.counter(VISITS).inc(user="second")
    instruments.counter(VISITS).inc(user="third")  # no room but where the second is
    assert value(instruments.registry, VISITS, user="second") == 1
    instruments.counter(BY_RESULT).inc(page="a", result="good")
    instruments.counter(VISITS).inc(user="first")
    assert value(instruments.registry, VISITS, user="first") == 2
    assert _sets(instruments)[BY_RESULT.name] == 0


def test_a_full_store_is_counted_and_said_once_for_each_metric(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = _Small(10_000)
    instruments = _instruments(VISITS, store=store)
    store.room = 0
    for number in range(3):
        instruments.counter(VISITS).inc(user=f"u{number}")
    told = [r.getMessage() for r in caplog.records if "no room" in r.getMessage()]
    assert len(told) == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_the_number_of_series_is_what_is_exposed(kind: Kind) -> None:
    metric = _visits("shop.some", Label("page", cap=9, bounded_by="pages"), kind=kind)
    instruments = _instruments(metric)
    for page in "abc":
        getattr(instruments, kind.value)(metric).at((page,))
    exposed = sum(len(family.samples) for family in instruments.registry.collect())
    assert value(instruments.registry, SERIES) == exposed


def test_a_histogram_below_zero_is_exposed_without_its_sum() -> None:
    shifts = Metric(
        name="shop.shift",
        kind=Kind.HISTOGRAM,
        unit="1",
        help="Shift.",
        owner="shop",
        buckets=(-1.0, 0.0, 1.0),
    )
    assert lines(Series(shifts, (), (-1.0, 0.0, 1.0))) == 5
