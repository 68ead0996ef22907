"""The assertions about metrics that users of the library get."""

from __future__ import annotations

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.errors import MetricError
from taskscope.testing.metrics import Metrics, Move, all_moved, isolated, moved, value

PAID = Metric(
    name="shop.orders.paid",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were paid.",
    owner="shop",
    labels=(Label("method", values=("card", "cash")),),
)
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Time in the queue.", owner="shop"
)


def test_a_block_that_moves_the_metric_as_told_passes() -> None:
    shop = isolated(PAID)
    with moved(shop.registry, PAID, by=2, method="card"):
        shop.counter(PAID).inc(2, method="card")


def test_a_block_that_moves_another_series_fails() -> None:
    shop = isolated(PAID)
    with (
        pytest.raises(AssertionError, match=r"\{method=card\} moved by 0, expected 1"),
        moved(shop.registry, PAID, by=1, method="card"),
    ):
        shop.counter(PAID).inc(method="cash")


def test_labels_that_are_left_out_are_summed() -> None:
    shop = isolated(PAID)
    shop.counter(PAID).inc(method="card")
    shop.counter(PAID).inc(2, method="cash")
    assert value(shop.registry, PAID) == 3


def test_a_histogram_gives_its_count_or_the_part_that_is_named() -> None:
    shop = isolated(WAIT)
    shop.histogram(WAIT).observe(0.5)
    shop.histogram(WAIT).observe(2)
    assert (value(shop.registry, WAIT), value(shop.registry, WAIT, part="sum")) == (2, 2.5)


def test_a_label_that_is_not_declared_is_an_error() -> None:
    shop = isolated(PAID)
    with pytest.raises(MetricError, match="no label methode"):
        value(shop.registry, PAID, methode="card")


def test_several_moves_are_asked_for_at_once_and_each_that_is_missing_is_told() -> None:
    shop = isolated(PAID, WAIT)
    moves = (
        Move(metric=PAID, by=1, labels={"method": "card"}),
        Move(metric=PAID, by=0, labels={"method": "cash"}),
        Move(metric=WAIT, by=2, part="sum"),
    )
    with all_moved(shop.registry, *moves):
        shop.counter(PAID).inc(method="card")
        shop.histogram(WAIT).observe(2)
    with (
        pytest.raises(
            AssertionError,
            match=r"\{method=card\} moved by 0, expected 1; shop.wait \{\} moved by 0, expected 2",
        ),
        all_moved(shop.registry, *moves),
    ):
        pass


def test_metrics_know_by_how_much_they_changed_since_they_were_made() -> None:
    shop = isolated(PAID, WAIT)
    shop.counter(PAID).inc(5, method="card")
    metrics = Metrics(shop.registry)
    shop.counter(PAID).inc(2, method="card")
    shop.histogram(WAIT).observe(3)
    assert metrics.change(PAID, method="card") == 2
    assert metrics.change(PAID, method="cash") == 0
    assert metrics.change(WAIT, part="sum") == 3
    assert metrics.value(PAID) == 7
    with metrics.moved(PAID, by=1):
        shop.counter(PAID).inc(method="cash")


def test_isolated_instruments_do_not_see_each_other() -> None:
    first, second = isolated(PAID), isolated(PAID)
    first.counter(PAID).inc(method="card")
    assert (value(first.registry, PAID), value(second.registry, PAID)) == (1, 0)


def test_strict_ones_raise_what_would_be_counted() -> None:
    with pytest.raises(MetricError, match="give exactly method"):
        isolated(PAID, strict=True).counter(PAID).inc(methode="card")
    lax = isolated(PAID)
    lax.counter(PAID).inc(methode="card")
    assert value(lax.registry, LIBRARY_ERRORS, component="metrics") == 1
