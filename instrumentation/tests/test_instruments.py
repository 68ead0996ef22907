"""The instruments: made from the catalogue, held to its bounds, exposed under its names."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from math import inf, isnan, nan

import pytest

from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Window
from taskscope.catalogue.builtin import (
    BUILTIN,
    LIBRARY_ERRORS,
    LOG_SHIPPED,
    OVERFLOWED,
    PROCESS_CPU,
    PROCESS_MEMORY,
    REQUEST_DURATION,
)
from taskscope.catalogue.metric import OVERFLOW
from taskscope.context import RequestContext, current_request
from taskscope.errors import MetricError
from taskscope.metrics.instruments import MAX_LABEL_SETS, Instruments
from taskscope.testing.metrics import isolated, value

PAID = Metric(
    name="shop.orders.paid",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were paid.",
    owner="shop",
    labels=(Label("method", values=("card", "cash")),),
)
BY_SHOP = Metric(
    name="shop.orders.open",
    kind=Kind.GAUGE,
    unit="{order}",
    help="Orders that are open.",
    owner="shop",
    labels=(
        Label("shop.name", cap=3, bounded_by="three shops"),
        Label("state", values=("new", "old")),
    ),
)
WIDE = Metric(
    name="shop.visits",
    kind=Kind.COUNTER,
    unit="{visit}",
    help="Visits.",
    owner="shop",
    labels=(
        Label("page", cap=900, bounded_by="the pages"),
        Label("browser", cap=900, bounded_by="the browsers"),
        Label("result", values=("good", "bad")),
    ),
)
WAIT = Metric(
    name="shop.wait", kind=Kind.HISTOGRAM, unit="s", help="Time in the queue.", owner="shop"
)
ALL = (PAID, BY_SHOP, WIDE, WAIT)


@pytest.fixture
def shop() -> Instruments:
    return isolated(*ALL, strict=True)


def _exposed(instruments: Instruments) -> set[str]:
    return {s.name for family in instruments.registry.collect() for s in family.samples}


def test_a_counter_counts_what_it_is_told(shop: Instruments) -> None:
    shop.counter(PAID).inc(method="card")
    shop.counter(PAID).inc(2, method="card")
    assert value(shop.registry, PAID, method="card") == 3


def test_a_gauge_is_set_raised_and_lowered(shop: Instruments) -> None:
    gauge = shop.gauge(BY_SHOP)
    gauge.set(5, shop_name="north", state="new")
    gauge.inc(2, shop_name="north", state="new")
    gauge.dec(shop_name="north", state="new")
    assert value(shop.registry, BY_SHOP, shop_name="north", state="new") == 6


def test_a_histogram_puts_a_value_on_its_bound_into_that_bucket(shop: Instruments) -> None:
    shop.histogram(WAIT).observe(0.1)
    assert value(shop.registry, WAIT, part="bucket", le="0.1") == 1
    assert value(shop.registry, WAIT, part="bucket", le="0.075") == 0


def test_series_with_listed_values_are_there_at_zero_from_the_start(shop: Instruments) -> None:
    samples = [s for f in shop.registry.collect() for s in f.samples if s.name == PAID.series]
    assert {(s.labels["method"], s.value) for s in samples} == {("card", 0.0), ("cash", 0.0)}


def test_a_value_that_is_not_listed_folds_into_overflow_and_is_counted(shop: Instruments) -> None:
    shop.counter(PAID).inc(method="barter")
    assert value(shop.registry, PAID, method=OVERFLOW) == 1
    assert value(shop.registry, OVERFLOWED, label="method") == 1


def test_values_beyond_the_cap_fold_and_those_before_stay(shop: Instruments) -> None:
    gauge = shop.gauge(BY_SHOP)
    for name in ("a", "b", "c", "d", "e", "a"):
        gauge.inc(shop_name=name, state="new")
    assert value(shop.registry, BY_SHOP, shop_name="a") == 2
    assert value(shop.registry, BY_SHOP, shop_name=OVERFLOW) == 2


def test_the_fold_of_a_label_is_logged_once(
    shop: Instruments, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        shop.counter(PAID).inc(method=f"barter {number}")
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 1
    assert "shop.orders.paid: label method went beyond its declared bound" in told[0]


def test_label_sets_are_bounded_and_listed_labels_survive_the_fold(shop: Instruments) -> None:
    visits = shop.counter(WIDE)
    for number in range(MAX_LABEL_SETS + 200):
        visits.inc(page=f"p{number % 37}", browser=f"b{number % 41}", result="bad")
    sets = [s for f in shop.registry.collect() for s in f.samples if s.name == WIDE.series]
    # Two of the 1,000 wait for what overflows with result good, or with a result that is not listed.
    assert len(sets) == MAX_LABEL_SETS - 2
    assert value(shop.registry, WIDE, page=OVERFLOW, result="bad") == 203


def test_an_unknown_label_is_an_error_that_names_the_right_ones(shop: Instruments) -> None:
    with pytest.raises(MetricError, match="labels user_id were given; give exactly method"):
        shop.counter(PAID).inc(user_id="7")


def test_a_missing_label_is_an_error(shop: Instruments) -> None:
    with pytest.raises(MetricError, match="labels none were given; give exactly method"):
        shop.counter(PAID).inc()


def test_a_label_too_many_is_an_error(shop: Instruments) -> None:
    with pytest.raises(MetricError, match="give exactly none"):
        shop.histogram(WAIT).observe(1, method="card")


def test_a_metric_that_is_not_declared_is_an_error_with_the_remedy() -> None:
    with pytest.raises(MetricError, match=r"add this Metric to Catalogue\(metrics=…\)"):
        isolated().counter(PAID)


def test_a_metric_of_another_target_is_an_error(shop: Instruments) -> None:
    with pytest.raises(MetricError, match="for target service"):
        shop.counter(LOG_SHIPPED)


@pytest.mark.parametrize("ask", ["gauge", "histogram"])
def test_a_counter_asked_for_as_another_kind_is_an_error(shop: Instruments, ask: str) -> None:
    with pytest.raises(MetricError, match=f"it is a counter, not a {ask}"):
        getattr(shop, ask)(PAID)


@pytest.mark.parametrize("amount", [-1, "many"])
def test_a_wrong_amount_is_counted_and_does_not_raise(shop: Instruments, amount: float) -> None:
    shop.counter(PAID).inc(amount, method="card")
    assert value(shop.registry, PAID, method="card") == 0
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics") == 1


def test_a_gauge_that_follows_a_failing_function_is_nan_and_the_rest_is_exposed(
    shop: Instruments,
) -> None:
    def broken() -> float:
        raise OSError("gone")

    shop.gauge(BY_SHOP).follow(broken, shop_name="north", state="new")
    assert isnan(value(shop.registry, BY_SHOP, shop_name="north"))
    assert (
        value(shop.registry, LIBRARY_ERRORS, component="probes") == 2
    )  # once for each of two looks


def test_a_gauge_takes_what_a_float_can_be(shop: Instruments) -> None:
    shop.gauge(BY_SHOP).set(nan, shop_name="north", state="new")
    assert isnan(value(shop.registry, BY_SHOP, shop_name="north"))


def test_an_objectives_threshold_is_an_exact_bucket_bound() -> None:
    latency = Objective(
        name="latency",
        title="Fast",
        metric=REQUEST_DURATION,
        target=Decimal("0.99"),
        window=Window(days=30),
        threshold=Decimal("0.3"),
    )
    instruments = Instruments(Catalogue(service="shop", objectives=(latency,)))
    labels = ("GET", "/", "200", "ok")
    instruments.histogram(REQUEST_DURATION).at(labels).observe(0.3)
    bounds = value(instruments.registry, REQUEST_DURATION, part="bucket", le="0.3")
    assert bounds == 1


def test_what_is_exposed_is_what_the_catalogue_declares_both_ways(shop: Instruments) -> None:
    shop.histogram(REQUEST_DURATION).at(("GET", "/", "200", "ok")).observe(1)
    for metric in shop.catalogue.all_metrics:  # capped labels have no series before their first use
        if metric.target == "service" and not metric.name.startswith("process."):
            made = getattr(shop, metric.kind.value)(metric)
            made.at(tuple(label.values[0] if label.values else "x" for label in metric.labels))
    declared = {
        name for metric in (*BUILTIN, *ALL) if metric.target == "service" for name in metric.exposed
    }
    assert _exposed(shop) == declared


def test_the_shippers_process_exposes_the_shippers_metrics_only() -> None:
    instruments = Instruments(Catalogue(service="shop"), target="shipper")
    declared = {name for m in BUILTIN if m.target == "shipper" for name in m.exposed}
    exposed = _exposed(instruments)
    assert exposed <= declared
    assert "taskscope_logs_shipped_total" in exposed


def test_counts_from_many_threads_are_all_there(shop: Instruments) -> None:
    visits = shop.counter(WIDE)

    def visit(number: int) -> None:
        visits.inc(page=f"p{number % 50}", browser="b", result="good")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(4_000)))
    assert value(shop.registry, WIDE) == 4_000


def test_two_registries_do_not_see_each_other() -> None:
    one, other = isolated(PAID), isolated(PAID)
    one.counter(PAID).inc(method="card")
    assert value(other.registry, PAID) == 0


def test_each_kind_of_error_is_told_once_a_minute_with_how_often_it_came(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moment = [0.0]
    instruments = Instruments(Catalogue(service="shop", metrics=ALL), now=lambda: moment[0])
    for moment[0] in (0.0, 1.0, 59.0, 60.0):
        instruments.failed("probes", OSError("gone"))
        instruments.failed("tracing", OSError("gone"))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        *["an error inside the library was kept from the request"] * 2,
        *["an error inside the library was kept from the request (3 times since it was last told)"]
        * 2,
    ]
    assert value(instruments.registry, LIBRARY_ERRORS, component="probes") == 4


def test_an_error_of_the_log_path_is_counted_and_not_logged(
    shop: Instruments, caplog: pytest.LogCaptureFixture
) -> None:
    shop.failed("logs", OSError("disk full"))
    assert caplog.records == []
    assert value(shop.registry, LIBRARY_ERRORS, component="logs") == 1


def test_an_objective_by_label_needs_no_bucket() -> None:
    paid = Objective(
        name="paid",
        title="Paid by card",
        metric=PAID,
        target=Decimal("0.9"),
        window=Window(days=7),
        bad=Match(label="method", values=("cash",)),
    )
    assert Instruments(Catalogue(service="shop", metrics=(PAID,), objectives=(paid,))).counter(PAID)


@pytest.mark.parametrize("number", [nan, inf])
def test_a_number_that_is_not_finite_spoils_no_sum(shop: Instruments, number: float) -> None:
    shop.counter(PAID).inc(number, method="card")
    shop.counter(PAID).inc(2, method="card")
    shop.histogram(WAIT).observe(number)
    shop.histogram(WAIT).observe(0.5)
    sums = value(shop.registry, PAID), value(shop.registry, WAIT, part="sum")
    assert sums == (2, 0.5)
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics") == 2


def test_every_component_of_the_library_starts_without_an_error(shop: Instruments) -> None:
    kinds = {
        (s.labels["component"], s.labels["error_type"], s.value)
        for family in shop.registry.collect()
        for s in family.samples
        if s.name == LIBRARY_ERRORS.series
    }
    assert kinds == {(component, "none", 0.0) for component in LIBRARY_ERRORS.labels[0].values}


@pytest.mark.parametrize("labels", [{}, {"user_id": "7"}, {"method": "card", "user_id": "7"}])
def test_wrong_labels_in_production_fail_no_request_are_counted_and_said_once(
    labels: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    instruments = Instruments(Catalogue(service="shop", metrics=ALL))
    for _ in range(3):
        instruments.counter(PAID).inc(**labels)  # type: ignore[arg-type] # amount is not among them
    assert value(instruments.registry, PAID) == 0
    assert value(instruments.registry, LIBRARY_ERRORS, error_type="MetricError") == 3
    assert [r.getMessage() for r in caplog.records] == [
        f"shop.orders.paid: labels {', '.join(sorted(labels)) or 'none'} were given; give exactly method"
    ]


def test_a_fold_is_said_again_after_a_minute_by_metric_and_label(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moment = [0.0]
    instruments = Instruments(Catalogue(service="shop", metrics=ALL), now=lambda: moment[0])
    said = []
    for moment[0] in (0.0, 59.0, 60.0, 61.0, 120.0):
        instruments.counter(PAID).inc(method="barter")
        instruments.gauge(BY_SHOP).set(1, shop_name="north", state="lost")
        said.append(len(caplog.records))
    assert said == [2, 2, 4, 4, 6]
    assert "shop.orders.open: label state" in caplog.records[1].getMessage()
    assert caplog.records[2].getMessage().endswith("(2 times since it was last told)")


def test_an_observation_and_a_count_bear_the_trace_of_a_sampled_request(shop: Instruments) -> None:
    request = RequestContext(
        request_id="1", method="GET", path="/", trace_id="a" * 32, span_id="b" * 16, sampled=True
    )
    token = current_request.set(request)
    try:
        shop.counter(PAID).inc(method="card")
        shop.histogram(WAIT).observe(0.5)
        request.sampled = False
        shop.histogram(WAIT).observe(5.0)
    finally:
        current_request.reset(token)
    marked = {
        s.name: (s.exemplar.labels, s.exemplar.value)
        for family in shop.registry.collect()
        for s in family.samples
        if s.exemplar is not None
    }
    labels = {"trace_id": "a" * 32, "span_id": "b" * 16}
    assert marked == {PAID.series: (labels, 1.0), "shop_wait_seconds_bucket": (labels, 0.5)}


def test_what_is_no_exemplar_is_counted_and_the_observation_stands(shop: Instruments) -> None:
    shop.histogram(WAIT).at(()).observe(0.5, {"trace_id": "a"})  # type: ignore[arg-type] # prometheus_client's way
    assert value(shop.registry, WAIT) == 1
    assert value(shop.registry, LIBRARY_ERRORS, component="metrics") == 1


def test_the_process_is_read_at_each_look(shop: Instruments) -> None:
    cpu, memory = value(shop.registry, PROCESS_CPU), value(shop.registry, PROCESS_MEMORY)
    assert cpu > 0
    assert memory > 1_000_000
    assert value(shop.registry, PROCESS_CPU) >= cpu


def test_followed_values_are_in_the_store_after_a_refresh(shop: Instruments) -> None:
    numbers = iter((1.0, 2.0))
    shop.gauge(BY_SHOP).follow(lambda: next(numbers), shop_name="north", state="new")
    seen = []
    for _ in range(2):
        shop.refresh()
        seen += [r.cells[0] for r in shop.store.readings() if r.series.metric is BY_SHOP]
    assert seen == [1.0, 2.0]


def test_a_value_that_is_followed_anew_has_one_source(shop: Instruments) -> None:
    for number in (1.0, 2.0):
        shop.gauge(BY_SHOP).follow(lambda n=number: n, shop_name="north", state="new")
    assert value(shop.registry, BY_SHOP, shop_name="north") == 2.0


def test_values_that_keep_their_own_series_are_known_from_those_that_are_folded(
    shop: Instruments,
) -> None:
    counter = shop.counter(PAID)
    assert counter.fold(("card",)) is None
    fold = counter.fold(("barter",))
    assert fold is not None
    assert value(shop.registry, OVERFLOWED, metric=PAID.name) == 0
    fold(3)
    assert value(shop.registry, OVERFLOWED, metric=PAID.name, label="method") == 3


def test_a_child_may_be_written_with_others_under_one_lock(shop: Instruments) -> None:
    children = [shop.counter(PAID).at((method,)) for method in ("card", "cash")]
    with shop.store.lock:
        for child in children:
            shop.store.cells[child.base] += 1.0
    assert value(shop.registry, PAID) == 2


def test_the_wrong_number_of_values_is_an_error_that_names_the_labels(shop: Instruments) -> None:
    with pytest.raises(MetricError, match="2 label values were given; give one for each of method"):
        shop.counter(PAID).at(("card", "cash"))


def test_a_handler_of_logs_that_raises_fails_no_count(shop: Instruments) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(f"planted for {record.name}")

    handler = Broken()
    logging.getLogger("taskscope").addHandler(handler)
    try:
        shop.counter(PAID).inc(method="barter")
        shop.failed("probes", OSError("gone"))
    finally:
        logging.getLogger("taskscope").removeHandler(handler)
    assert value(shop.registry, PAID, method=OVERFLOW) == 1
    assert value(shop.registry, LIBRARY_ERRORS, component="probes") == 1
