"""Where a decorator measures, what it refuses when it is written, and what it keeps from the call."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from taskscope.catalogue import Kind, Label, Metric
from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.context import RequestContext, current_request
from taskscope.decorators import counted, in_flight, timed
from taskscope.errors import MetricError
from taskscope.metrics import current
from taskscope.metrics.instruments import Instruments
from taskscope.testing.metrics import isolated, value


def _counter(name: str, *labels: Label) -> Metric:
    return Metric(
        name=name,
        kind=Kind.COUNTER,
        unit="{order}",
        help="Orders.",
        owner="shop",
        labels=labels,
    )


ORDERS = _counter("shop.orders")
PAID = _counter("shop.paid", Label("method", values=("card", "cash")))
CITIES = _counter("shop.cities", Label("city", cap=5, bounded_by="the cities"))
SENT = _counter("shop.sent", Label("outcome", values=("ok", "error")))
STATES = _counter("shop.states", Label("outcome", values=("ok", "client_error")))
WAIT = Metric(name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Time.", owner="shop")
SIZE = Metric(
    name="shop.size",
    kind=Kind.HISTOGRAM,
    unit="By",
    help="Size.",
    owner="shop",
    buckets=(1.0, 2.0),
)


@counted(ORDERS)
def order() -> str:
    return "ordered"


@pytest.fixture(autouse=True)
def nothing_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(current, "_offered", current._Offered())


@pytest.fixture
def served() -> Iterator[Instruments]:
    """The code runs within a request of the app that these belong to."""
    shop = isolated(ORDERS)
    context = RequestContext(request_id="0" * 32, method="GET", path="/", instruments=shop)
    token = current_request.set(context)
    yield shop
    current_request.reset(token)


def _offered(*metrics: Metric) -> Instruments:
    shop = isolated(*metrics)
    current.offer(shop)
    return shop


def test_within_a_request_its_own_app_is_measured(served: Instruments) -> None:
    other = _offered(ORDERS)
    order()
    assert (value(served.registry, ORDERS), value(other.registry, ORDERS)) == (1, 0)


def test_outside_of_requests_the_only_app_of_the_process_is_measured() -> None:
    shop = _offered(ORDERS)
    order()
    assert value(shop.registry, ORDERS) == 1


def test_of_several_apps_the_only_one_that_declares_the_metric_is_measured() -> None:
    shop, other = _offered(ORDERS), _offered(PAID)
    order()
    assert value(shop.registry, ORDERS) == 1
    del other


def test_an_app_offered_twice_is_one_and_one_withdrawn_is_none() -> None:
    shop, other = _offered(ORDERS), _offered(ORDERS)
    current.offer(shop)
    current.withdraw(other)
    order()
    assert (value(shop.registry, ORDERS), value(other.registry, ORDERS)) == (1, 0)


def test_an_app_that_is_dropped_is_forgotten() -> None:
    _offered(ORDERS)
    gc.collect()
    shop = _offered(ORDERS)
    order()
    assert value(shop.registry, ORDERS) == 1


def test_a_test_may_choose_and_the_tasks_it_starts_follow(served: Instruments) -> None:
    shop = isolated(ORDERS)

    async def later() -> None:
        await asyncio.create_task(asyncio.to_thread(order))

    with current.using(shop):
        order()
        asyncio.run(later())
    assert (value(shop.registry, ORDERS), value(served.registry, ORDERS)) == (2, 0)


def test_a_test_may_set_all_others_aside_and_they_come_back() -> None:
    first, second = _offered(ORDERS), _offered(ORDERS)
    third = isolated(ORDERS)
    with current.only(third):
        thread = Thread(target=order)  # has a context of its own
        thread.start()
        thread.join(5)
        fourth = _offered(PAID)
    assert value(third.registry, ORDERS) == 1
    current.withdraw(first)
    order()
    assert [value(each.registry, ORDERS) for each in (first, second, third)] == [0, 1, 1]
    current.withdraw(second)
    counted(PAID, method="card")(order)()
    assert value(fourth.registry, PAID) == 1


def test_without_an_app_the_function_runs_and_that_nothing_is_counted_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    function = counted(ORDERS)(lambda: "ordered")
    with caplog.at_level(logging.WARNING):
        assert [function(), function()] == ["ordered", "ordered"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "shop.orders: there is nothing to measure with, so this is left out; call instrument() first, "
        "or give counted() instruments=telemetry.instruments where a process has several apps"
    )


def test_of_two_apps_that_declare_the_metric_none_is_guessed() -> None:
    shop, other = _offered(ORDERS), _offered(ORDERS)
    assert order() == "ordered"
    assert value(shop.registry, ORDERS) == value(other.registry, ORDERS) == 0


def test_a_label_may_be_a_function_of_the_calls_arguments() -> None:
    shop = isolated(CITIES)

    @counted(CITIES, instruments=shop, city=lambda city, **_rest: city)
    def send(city: str, *, rush: bool = False) -> None: ...

    send("Bern", rush=True)
    send("Oslo")
    assert value(shop.registry, CITIES, city="Bern") == 1
    assert value(shop.registry, CITIES, city="Oslo") == 1


def test_an_outcome_that_lists_no_cancelled_counts_it_as_an_error() -> None:
    shop = isolated(SENT)

    @counted(SENT, instruments=shop)
    async def send() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(send())
    assert value(shop.registry, SENT, outcome="error") == 1


def test_an_outcome_that_is_given_is_kept() -> None:
    shop = isolated(STATES)
    counted(STATES, outcome="client_error", instruments=shop)(lambda: None)()
    assert value(shop.registry, STATES, outcome="client_error") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timed(ORDERS), r"shop.orders: it is a counter; timed\(\) takes a histogram"),
        (lambda: counted(WAIT), r"shop.wait: it is a histogram; counted\(\) takes a counter"),
        (lambda: in_flight(WAIT), r"it is a histogram; in_flight\(\) takes a gauge"),
        (lambda: timed(SIZE), r"its unit is By; timed\(\) takes a histogram of seconds"),
        (lambda: counted(PAID), r"was given labels none; give exactly method"),
        (lambda: counted(PAID, methode="card"), r"given labels methode; give exactly method"),
        (lambda: counted(PAID, method="coin"), r"no value 'coin'; take one of card, cash"),
        (lambda: counted(STATES), r"it lists ok, client_error; list those, or give outcome=…"),
        (lambda: counted(PAID, method="card", instruments=isolated(ORDERS)), "does not declare it"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_is_written(make: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        make()


def test_a_metric_that_the_app_does_not_declare_is_counted_as_an_error_and_the_call_goes_on() -> (
    None
):
    shop = _offered(PAID)
    assert order() == "ordered"
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics", error_type="MetricError") == 1


def test_strict_instruments_raise_before_the_function_has_run() -> None:
    shop = _offered(PAID)
    shop.strict = True
    ran: list[int] = []
    with pytest.raises(MetricError, match="does not declare it"):
        counted(ORDERS)(lambda: ran.append(1))()
    assert ran == []


def test_a_label_function_that_fails_is_counted_and_the_call_goes_on() -> None:
    shop = isolated(CITIES)
    send = counted(CITIES, instruments=shop, city=lambda: {}["city"])(lambda: "sent")
    assert send() == "sent"
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics", error_type="KeyError") == 1


def test_a_store_that_fails_is_counted_and_the_call_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = _offered(ORDERS)

    def fail(_values: tuple[str, ...]) -> None:
        raise OSError("planted")

    monkeypatch.setattr(shop.counter(ORDERS), "at", fail)
    assert order() == "ordered"
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics", error_type="OSError") == 1


def test_a_sampled_requests_trace_is_the_exemplar(served: Instruments) -> None:
    request = current_request.get()
    assert request is not None
    request.sampled, request.trace_id, request.span_id = True, "a" * 32, "b" * 16
    order()
    (exemplar,) = [
        sample.exemplar
        for family in served.registry.collect()
        for sample in family.samples
        if sample.name == ORDERS.series
    ]
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": "a" * 32, "span_id": "b" * 16}
