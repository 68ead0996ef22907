"""A metric is checked at birth; its Prometheus names follow from its OpenTelemetry name and unit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue import Kind, Label, Metric, Unit
from taskscope.errors import MetricError


def metric(**changes: Any) -> Metric:
    given: dict[str, Any] = {
        "name": "shop.orders",
        "kind": Kind.COUNTER,
        "unit": "{order}",
        "help": "Orders that were placed.",
        "owner": "shop",
    }
    return Metric(**(given | changes))


@pytest.mark.parametrize(
    ("kind", "name", "unit", "series"),
    [
        (Kind.COUNTER, "shop.orders", "{order}", "shop_orders_total"),
        (Kind.COUNTER, "shop.orders.total", "{order}", "shop_orders_total"),
        (Kind.COUNTER, "shop.sent", "By", "shop_sent_bytes_total"),
        (Kind.COUNTER, "shop.work", "1", "shop_work_total"),
        (Kind.GAUGE, "shop.shelf.fill", "1", "shop_shelf_fill_ratio"),
        (Kind.GAUGE, "shop.queue.age", "s", "shop_queue_age_seconds"),
        (Kind.GAUGE, "shop.age_seconds", "s", "shop_age_seconds"),
        (Kind.HISTOGRAM, "shop.visit.duration", "s", "shop_visit_duration_seconds"),
    ],
)
def test_the_prometheus_name_follows_from_name_and_unit(
    kind: Kind, name: str, unit: str, series: str
) -> None:
    assert metric(kind=kind, name=name, unit=unit).series == series


def test_a_histogram_stores_three_series() -> None:
    duration = metric(kind=Kind.HISTOGRAM, name="shop.visit.duration", unit="s")
    assert duration.exposed == (
        "shop_visit_duration_seconds_bucket",
        "shop_visit_duration_seconds_count",
        "shop_visit_duration_seconds_sum",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Shop.Orders"}, "not a lower-case dotted name"),
        ({"name": "shop..orders"}, "not a lower-case dotted name"),
        ({"name": "shop.orders\n"}, "not a lower-case dotted name"),
        ({"unit": "ms"}, "'ms' is not a base unit; write s"),
        ({"unit": "%"}, "write 1"),
        ({"help": "Orders"}, "is no sentence"),
        ({"owner": ""}, "name the team"),
        ({"buckets": (1.0,)}, "a counter has no buckets"),
        ({"kind": Kind.HISTOGRAM}, "list the bounds"),
        (
            {"kind": Kind.HISTOGRAM, "unit": "s", "buckets": (1.0, 0.5)},
            r"buckets \(1.0, 0.5\) do not rise",
        ),
        ({"kind": Kind.HISTOGRAM, "unit": "s", "buckets": (1.0, 1.0)}, "do not rise"),
        ({"kind": Kind.HISTOGRAM, "unit": "s", "buckets": (1.0, float("inf"))}, "without \\+Inf"),
        (
            {"labels": (Label("size", values=("s",)), Label("size", values=("m",)))},
            "list each label once",
        ),
    ],
)
def test_a_wrong_declaration_is_told_where_what_and_the_remedy(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MetricError, match=sentence):
        metric(**changes)


@pytest.mark.parametrize("name", ["le", "job", "instance", "quantile", "User", "user-id", ""])
def test_a_label_takes_no_name_that_prometheus_keeps_for_itself(name: str) -> None:
    with pytest.raises(MetricError, match="rename it"):
        Label(name, values=("a",))


def test_a_label_without_a_bound_is_refused() -> None:
    with pytest.raises(MetricError, match="has no bound; list its values"):
        Label("user.id")


def test_a_cap_says_what_bounds_it() -> None:
    with pytest.raises(MetricError, match="has no bound"):
        Label("tenant", cap=50)
    assert Label("tenant", cap=50, bounded_by="the tenants of the contract").cap == 50


def test_http_labels_bring_their_bound_with_them() -> None:
    assert Label("http.request.method").values[-1] == "_OTHER"
    assert Label("http.route").cap == 200


def test_listed_values_are_the_cap() -> None:
    assert Label("size", values=("s", "m")).cap == 2
    with pytest.raises(MetricError, match="list each value once"):
        Label("size", values=("s", "s"))


def test_a_label_is_found_by_either_name() -> None:
    route = Label("http.route")
    orders = metric(labels=(route,))
    assert orders.label("http.route") is orders.label("http_route") is route
    with pytest.raises(MetricError, match="has no label colour; it has http_route"):
        orders.label("colour")


@pytest.mark.parametrize("code", ["s", "By", "1", "{request}", "{task_run}"])
def test_base_units_and_counted_things_are_units(code: str) -> None:
    assert Unit(code).code == code


@given(st.text(max_size=12).filter(lambda code: code not in {"s", "By", "1"} and code[:1] != "{"))
def test_any_other_unit_is_refused_with_a_remedy(code: str) -> None:
    with pytest.raises(MetricError, match="; write "):
        Unit(code)
