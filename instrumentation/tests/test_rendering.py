"""The text for Prometheus: the bytes of prometheus_client for the same content, whatever the labels and numbers."""

from __future__ import annotations

import asyncio
import subprocess
from array import array
from collections.abc import Callable, Iterable
from math import inf, nan
from time import perf_counter
from types import MappingProxyType

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from prometheus_client.registry import Collector

from taskscope.catalogue import Catalogue, Kind, Label, Metric
from taskscope.metrics.families import families
from taskscope.metrics.guests import Guests
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.rendering import Renderer
from taskscope.metrics.store import Exemplar, Reading, Series
from taskscope.testing.engines.prometheus import find_promtool

LABELS = (
    Label("zone", cap=500, bounded_by="the zones"),
    Label("http.route", cap=500, bounded_by="the routes"),
)
HELP = 'What "one" says\\n of \\ and\nof %s.'
BOUNDS = (0.005, 0.1, 1.0, 2.5, 1e6, 1e16)
VISITS = Metric(
    name="shop.visits", kind=Kind.COUNTER, unit="{visit}", help=HELP, owner="shop", labels=LABELS
)
STOCK = Metric(
    name="shop.stock", kind=Kind.GAUGE, unit="By", help=HELP, owner="shop", labels=LABELS
)
WAIT = Metric(
    name="shop.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help=HELP,
    owner="shop",
    labels=LABELS,
    buckets=BOUNDS,
)
PLAIN = Metric(name="shop.plain", kind=Kind.COUNTER, unit="s", help="Plain.", owner="shop")
ALL = (VISITS, STOCK, WAIT, PLAIN)
NO_EXEMPLARS: MappingProxyType[int, Exemplar] = MappingProxyType({})

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "\n", "%s", "%%", "{}", 'a="b",', "__overflow__", "é\u2028"]
)
amounts = st.floats(min_value=0) | st.sampled_from([0.0, 999999.0, 1e6, 123456789.0, 1e15, 1e22])
numbers = st.floats() | st.integers(-(2**60), 2**60).map(float) | st.sampled_from([nan, inf, -inf])
counts = st.integers(0, 2**53).map(float)
hexadecimal = st.text("0123456789abcdef", min_size=16, max_size=32)
exemplars = st.builds(
    Exemplar, hexadecimal, hexadecimal, numbers, st.floats(min_value=0, max_value=2e9)
)


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    """Series of all kinds in any order, each label set of a metric once."""
    made = {}
    for metric in draw(st.lists(st.sampled_from(ALL), max_size=12)):
        values = tuple(draw(texts) for _ in metric.labels)
        bounds = BOUNDS if metric.kind is Kind.HISTOGRAM else ()
        if bounds:
            cells = [*draw(st.lists(counts, min_size=7, max_size=7)), draw(numbers)]
        else:
            cells = [draw(numbers if metric.kind is Kind.GAUGE else amounts)]
        shown = {}
        if metric.kind is not Kind.GAUGE:
            shown = draw(st.dictionaries(st.integers(0, len(bounds)), exemplars, max_size=3))
        made[metric, values] = Reading(Series(metric, values, bounds), array("d", cells), shown)
    return list(made.values())


class _Page(Collector):
    """The readings for prometheus_client's own writers."""

    def __init__(self, made: list[Reading], metrics: tuple[Metric, ...] = ()) -> None:
        self._made = made
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        return families(self._made, self._metrics)


@settings(max_examples=150, deadline=None)
@given(st.lists(readings(), min_size=1, max_size=3), st.booleans())
def test_each_scrape_has_the_bytes_of_prometheus_client(
    scrapes: list[list[Reading]], declared: bool
) -> None:
    metrics = ALL if declared else ()
    renderer = Renderer(metrics)
    for made in scrapes:  # the same renderer, so that series come, stay and vanish
        page = _Page(made, metrics)
        assert renderer.render(made, openmetrics=False) == generate_latest(page)
        assert renderer.render(made, openmetrics=True) == generate_openmetrics(page)  # type: ignore[no-untyped-call] # without types


@settings(max_examples=60, deadline=None)
@given(readings())
def test_what_is_written_reads_back_as_it_was(made: list[Reading]) -> None:
    text = Renderer().render(made, openmetrics=False).decode()
    read = {
        (sample.name, tuple(sorted(sample.labels.items()))): repr(sample.value)
        for family in classic(text)
        for sample in family.samples
    }
    meant = {
        (sample.name, tuple(sorted(sample.labels.items()))): repr(float(sample.value))
        for family in families(made, ())
        for sample in family.samples
    }
    assert read == meant


def _native(registry: CollectorRegistry) -> None:
    visits = prometheus_client.Counter(
        "shop_visits", HELP, ["zone", "http_route"], registry=registry
    )
    stock = prometheus_client.Gauge(
        "shop_stock_bytes", HELP, ["zone", "http_route"], registry=registry
    )
    wait = prometheus_client.Histogram(
        "shop_wait_seconds", HELP, ["zone", "http_route"], registry=registry, buckets=BOUNDS
    )
    prometheus_client.Counter("shop_plain_seconds", "Plain.", registry=registry).inc(0.25)
    for number, (zone, route) in enumerate((("b", "/"), ("a", "/é\n"), ("__overflow__", '"'))):
        visits.labels(zone, route).inc(number * 1e6)
        stock.labels(zone, route).set(-number)
        for step in range(5 * number):
            wait.labels(zone, route).observe(step / 3)


def _ours() -> Instruments:
    instruments = Instruments(Catalogue(service="shop", metrics=ALL))
    instruments.counter(PLAIN).inc(0.25)
    for number, values in enumerate((("b", "/"), ("a", "/é\n"), ("__overflow__", '"'))):
        instruments.counter(VISITS).at(values).inc(number * 1e6)
        instruments.gauge(STOCK).at(values).set(-number)
        for step in range(5 * number):
            instruments.histogram(WAIT).at(values).observe(step / 3)
    return instruments


@pytest.mark.parametrize("asked", [False, True])
def test_its_own_metrics_of_the_same_content_have_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr("prometheus_client.metrics._use_created", False)
    registry = CollectorRegistry()
    _native(registry)
    write = generate_openmetrics if asked else generate_latest
    made = [r for r in _ours().store.readings() if r.series.metric in ALL and r.cells]
    expected = write(registry)  # type: ignore[operator] # the one has types, the other has not
    # The native histogram of a label set starts when it is first asked for, ours with `at`.
    made = [r for r in made if r.series.metric is not WAIT or r.series.values[0] != "b"]
    assert Renderer(ALL).render(made, openmetrics=asked) == expected


def _reading(metric: Metric, *values: str, exemplar: Exemplar | None = None) -> Reading:
    bounds = BOUNDS if metric.kind is Kind.HISTOGRAM else ()
    cells = array("d", [1.0] * (len(bounds) + 2 if bounds else 1))
    return Reading(Series(metric, values, bounds), cells, {} if exemplar is None else {0: exemplar})


def test_exemplars_are_in_openmetrics_alone_and_their_timestamps_are_kept() -> None:
    exemplar = Exemplar("a" * 32, "b" * 16, 0.25, 1700000000.123)
    made = [_reading(PLAIN, exemplar=exemplar), _reading(WAIT, "a", "/", exemplar=exemplar)]
    text = Renderer().render(made, openmetrics=True).decode()
    found = [s.exemplar for family in openmetrics(text) for s in family.samples if s.exemplar]
    assert [(e.labels, e.value, float(e.timestamp)) for e in found] == [
        ({"trace_id": "a" * 32, "span_id": "b" * 16}, 0.25, 1700000000.123)
    ] * 2
    assert b"trace_id" not in Renderer().render(made, openmetrics=False)


def test_a_declared_family_without_series_is_told_of() -> None:
    assert Renderer((PLAIN,)).render([], openmetrics=True) == (
        b"# HELP shop_plain_seconds Plain.\n# TYPE shop_plain_seconds counter\n# EOF\n"
    )


def test_texts_of_series_that_vanished_are_not_kept() -> None:
    renderer = Renderer((VISITS,))
    renderer.render([_reading(VISITS, str(n), "/") for n in range(50)], openmetrics=False)
    renderer.render([_reading(STOCK, str(n), "/") for n in range(3)], openmetrics=False)
    assert renderer.kept_series == 3


def test_texts_are_kept_up_to_a_bound_and_the_page_is_whole_beyond_it() -> None:
    made = [_reading(VISITS, str(number), "/") for number in range(100)]
    renderer = Renderer(kept_characters=500)
    first = renderer.render(made, openmetrics=False)
    assert renderer.render(made, openmetrics=False) == first == generate_latest(_Page(made))
    assert 0 < renderer.kept_series < 20


def test_workers_whose_buckets_differ_are_all_on_the_page() -> None:
    other = Reading(Series(WAIT, ("b", "/"), (1.0,)), array("d", [1, 1, 9]), NO_EXEMPLARS)
    made = [_reading(WAIT, "a", "/"), other]
    renderer = Renderer()
    for _ in range(2):
        assert renderer.render(made, openmetrics=False) == generate_latest(_Page(made))


def test_a_histogram_below_zero_has_no_sum() -> None:
    bounds = (-1.0, 1.0)
    made = [Reading(Series(WAIT, ("a", "/"), bounds), array("d", [1, 1, 1, -5]), NO_EXEMPLARS)]
    assert Renderer().render(made, openmetrics=False) == generate_latest(_Page(made))


class _Broken(Collector):
    def collect(self) -> Iterable[Family]:
        raise RuntimeError("planted")


class _Fixed(Collector):
    def __init__(self, *made: Family) -> None:
        self._made = made

    def collect(self) -> Iterable[Family]:
        return self._made


def _guests(*registries: Collector) -> tuple[Guests, list[str]]:
    told: list[str] = []

    def failed(component: str, error: BaseException | None) -> None:
        assert component == "exposition"
        told.append(str(error))

    return Guests(registries, metrics=ALL, failed=failed), told


@pytest.mark.parametrize("asked", [False, True])
def test_metrics_of_another_registry_share_the_page_with_one_end(asked: bool) -> None:
    registry = CollectorRegistry()
    prometheus_client.Counter("theirs", "Theirs.", registry=registry).inc(3)
    guests, told = _guests(registry)
    made = [_reading(PLAIN)]
    text = Renderer(ALL).render(made, openmetrics=asked, guests=guests.render(openmetrics=asked))
    found = {s.name for f in (openmetrics if asked else classic)(text.decode()) for s in f.samples}
    assert {"shop_plain_seconds_total", "theirs_total"} <= found
    assert (text.count(b"# EOF"), told) == (asked, [])


def test_a_family_whose_name_is_taken_is_left_out_and_told_once() -> None:
    registry = CollectorRegistry()
    prometheus_client.Counter("shop_plain_seconds", "Theirs.", registry=registry)
    prometheus_client.Gauge("theirs", "Theirs.", registry=registry).set(1)
    guests, told = _guests(registry, registry)
    texts_of = [guests.render(openmetrics=False) for _ in range(3)]
    assert texts_of == [b"# HELP theirs Theirs.\n# TYPE theirs gauge\ntheirs 1.0\n"] * 3
    assert len(told) == 2  # ours, and their own of the second registry
    assert told[0].startswith("shop_plain_seconds: shop_plain_seconds")


def test_a_guest_that_raises_or_cannot_be_written_spoils_nothing() -> None:
    bad = Family("bad", "Bad.", "gauge")
    bad.add_sample("bad", {}, "no number")  # type: ignore[arg-type] # as a collector of a user may
    good = Family("good", "Good.", "gauge")
    good.add_sample("good", {}, 1)
    guests, told = _guests(_Broken(), _Fixed(bad, good))
    assert guests.render(openmetrics=True) == b"# HELP good Good.\n# TYPE good gauge\ngood 1.0\n"
    assert len(told) == 2


def test_two_threads_may_render_at_once() -> None:
    instruments = _ours()
    renderer = Renderer(instruments.metrics)
    made = list(instruments.readings())

    async def both() -> list[bytes]:
        asked = [
            asyncio.to_thread(renderer.render, made, openmetrics=bool(n % 2)) for n in range(40)
        ]
        return await asyncio.gather(*asked)

    assert len(set(asyncio.run(both()))) == 2


def test_others_get_the_interpreter_several_times_in_a_large_scrape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []
    monkeypatch.setattr("taskscope.metrics.rendering.sleep", paused.append)
    Renderer().render([_reading(WAIT, str(n), "/") for n in range(1_000)], openmetrics=False)
    assert len(paused) == 6


def test_a_scrape_is_several_times_faster_than_prometheus_clients() -> None:
    made = [_reading(WAIT, str(n), "/") for n in range(200)]
    page, renderer = _Page(made), Renderer()
    pairs = [
        (
            _seconds(lambda: renderer.render(made, openmetrics=False)),
            _seconds(lambda: generate_latest(page)),
        )
        for _ in range(7)
    ]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    assert ours * 4 < theirs  # benchmarks/scrape.py shows more than ten times


def _seconds(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


@pytest.mark.engine
def test_promtool_reads_the_page_and_has_nothing_against_our_own_metrics() -> None:
    binary = find_promtool()
    if binary is None:
        pytest.skip("promtool is not installed; run: apt-get install prometheus")
    instruments = _ours()
    text = Renderer(instruments.metrics).render(instruments.readings(), openmetrics=False)
    checked = subprocess.run(
        [str(binary), "check", "metrics"], input=text, capture_output=True, check=False, timeout=60
    )
    # 3 is for names that it would spell otherwise; they are OpenTelemetry's.
    assert checked.returncode in (0, 3)
    assert b"error while linting" not in checked.stderr
