"""What a service emits against what it declares: each kind of fault is planted and named."""

from __future__ import annotations

import prometheus_client
import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.metrics.instruments import Instruments
from taskscope.testing.conformance import conformance
from taskscope.testing.metrics import isolated

ORDERS = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders.",
    owner="shop",
    labels=(Label("payment", values=("card", "cash")),),
)
CITIES = Metric(
    name="shop.cities",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders by city.",
    owner="shop",
    labels=(Label("city", cap=1, bounded_by="the cities"),),
)
OPEN = Metric(name="shop.open", kind=Kind.GAUGE, unit="{order}", help="Open.", owner="shop")
WAIT = Metric(name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Time.", owner="shop")


@pytest.fixture
def shop() -> Instruments:
    return isolated(ORDERS, CITIES, OPEN, WAIT)


def test_a_service_that_keeps_to_its_catalogue_has_no_fault(shop: Instruments) -> None:
    shop.counter(ORDERS).inc(payment="card")
    shop.histogram(WAIT).observe(1)
    found = conformance(shop)
    assert found.faults == ()
    found.check()


def test_what_was_never_moved_is_told_and_is_a_fault_only_if_asked(shop: Instruments) -> None:
    shop.counter(ORDERS).inc(payment="card")
    found = conformance(shop)
    assert [metric.name for metric in found.unmoved] == ["shop.cities", "shop.wait"]
    found.check()
    with pytest.raises(AssertionError, match=r"shop\.wait: it is declared and nothing moved it"):
        found.check(moved=True)


def test_a_series_that_nobody_declares_is_named(shop: Instruments) -> None:
    prometheus_client.Gauge("stray", "Not declared.", registry=shop.registry)
    assert conformance(shop).faults == (
        "stray: it is emitted and no metric declares it; add it to the catalogue",
    )


def test_a_value_beyond_a_labels_bound_is_named(shop: Instruments) -> None:
    shop.counter(CITIES).inc(city="Bern")
    shop.counter(CITIES).inc(city="Oslo")
    faults = "\n".join(conformance(shop).faults)
    assert "shop.cities: label city went beyond its bound; measure fewer values, or raise" in faults


def test_a_value_that_is_not_listed_is_named(shop: Instruments) -> None:
    shop.counter(ORDERS).inc(payment="coin")
    assert "shop.orders: label payment went beyond" in "\n".join(conformance(shop).faults)


def test_labels_that_are_not_the_declared_ones_are_named() -> None:
    shop = isolated()
    stray = prometheus_client.Counter("shop_orders", "Mine.", ["method"], registry=shop.registry)
    stray.labels("card").inc()
    declared = isolated(ORDERS)
    declared.registry.register(shop.registry)  # type: ignore[arg-type] # a registry collects too
    assert any(
        fault.startswith("shop_orders_total: it has labels method; shop.orders declares payment")
        for fault in conformance(declared).faults
    )


def test_an_error_that_the_library_kept_from_the_request_is_named(shop: Instruments) -> None:
    shop.failed("probes", KeyError("planted"))
    assert conformance(shop).faults == (
        "taskscope.library.errors: 1 of probes, KeyError; the service's log says what it was",
    )
