"""A peer's old series, derived from ours when it is scraped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskscope.adoption import Aliases, aliases, instrumented_again
from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, REQUEST_DURATION, RESPONSE_SIZE
from taskscope.errors import InstrumentError
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.rendering import Renderer
from taskscope.testing.metrics import isolated

PFI = "prometheus-fastapi-instrumentator"
EXPORTER = "starlette_exporter"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def shop() -> Instruments:
    """A service that answered six requests: three orders, one of them wrong, a slow one, an unknown path."""
    shop = isolated()
    requests = (
        ("POST", "/orders", "201", "ok", 0.02),
        ("POST", "/orders", "200", "ok", 0.3),
        ("POST", "/orders", "422", "client_error", 0.004),
        ("GET", "/orders/{order}", "200", "ok", 2.7),
        ("GET", "/orders/{order}", "200", "ok", 40.0),
        ("GET", "unmatched", "404", "client_error", 0.001),
    )
    for method, route, status, outcome, seconds in requests:
        shop.histogram(REQUEST_DURATION).at((method, route, status, outcome)).observe(seconds)
        shop.histogram(RESPONSE_SIZE).at((method, route)).observe(100)
    shop.gauge(ACTIVE_REQUESTS).set(2)
    return shop


def _scraped(old: Aliases, shop: Instruments) -> Samples:
    text = Renderer().render(old.readings(shop.readings()), openmetrics=False).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _sample(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_the_instrumentators_count_groups_status_codes_and_names_unmatched_paths_none(
    shop: Instruments,
) -> None:
    samples = _scraped(aliases(PFI), shop)
    counts = {
        tuple(sorted(dict(labels).values())): count
        for (name, labels), count in samples.items()
        if name == "http_requests_total"
    }
    assert counts == {
        ("/orders", "2xx", "POST"): 2,
        ("/orders", "4xx", "POST"): 1,
        ("/orders/{order}", "2xx", "GET"): 2,
        ("4xx", "GET", "none"): 1,
    }


def test_the_instrumentators_low_resolution_is_exact(shop: Instruments) -> None:
    samples = _scraped(aliases(PFI), shop)
    orders = {"handler": "/orders", "method": "POST"}
    buckets = {
        le: _sample(samples, "http_request_duration_seconds_bucket", le=le, **orders)
        for le in ("0.1", "0.5", "1.0", "+Inf")
    }
    assert buckets == {"0.1": 2, "0.5": 3, "1.0": 3, "+Inf": 3}
    assert _sample(samples, "http_request_duration_seconds_count", **orders) == 3
    assert _sample(samples, "http_request_duration_seconds_sum", **orders) == pytest.approx(0.324)


def test_the_instrumentators_high_resolution_has_the_buckets_that_are_known_and_no_other(
    shop: Instruments,
) -> None:
    samples = _scraped(aliases(PFI), shop)
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in samples.items()
        if name == "http_request_duration_highr_seconds_bucket"
    }
    low = {"0.01": 2, "0.025": 3, "0.05": 3, "0.075": 3, "0.1": 3, "0.25": 3, "0.5": 4}
    high = {"0.75": 4, "1.0": 4, "2.5": 4, "5.0": 5, "7.5": 5, "10.0": 5, "+Inf": 6}
    assert buckets == {**low, **high}


def test_the_instrumentators_sizes_have_count_and_sum(shop: Instruments) -> None:
    samples = _scraped(aliases(PFI), shop)
    assert _sample(samples, "http_response_size_bytes_count", handler="/orders") == 3
    assert _sample(samples, "http_response_size_bytes_sum", handler="/orders") == 300
    assert _sample(samples, "http_requests_inprogress") == 2


def test_the_exporters_series_are_exact_and_leave_unmatched_paths_out(shop: Instruments) -> None:
    samples = _scraped(aliases(EXPORTER), shop)
    slow = {
        "method": "GET",
        "path": "/orders/{order}",
        "status_code": "200",
        "app_name": "starlette",
    }
    assert _sample(samples, "starlette_requests_total", **slow) == 2
    assert _sample(samples, "starlette_request_duration_seconds_bucket", le="5.0", **slow) == 1
    assert _sample(samples, "starlette_request_duration_seconds_sum", **slow) == 42.7
    assert _sample(samples, "starlette_requests_in_progress", app_name="starlette") == 2
    assert not any(("path", "unmatched") in labels for _, labels in samples)


def test_the_exporters_prefix_and_app_name_are_as_the_service_gave_them(shop: Instruments) -> None:
    samples = _scraped(aliases(EXPORTER, app_name="shop", prefix="http"), shop)
    assert _sample(samples, "http_requests_in_progress", app_name="shop") == 2


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        (
            PFI,
            [
                "http_requests_total",
                "http_request_duration_seconds",
                "http_request_duration_highr_seconds",
                "http_response_size_bytes",
                "http_requests_inprogress",
            ],
        ),
        (
            EXPORTER,
            [
                "starlette_requests_total",
                "starlette_request_duration_seconds",
                "starlette_requests_in_progress",
            ],
        ),
    ],
)
def test_the_old_names_are_the_peers(peer: str, names: list[str]) -> None:
    assert [metric.series for metric in aliases(peer).metrics] == names


def test_the_notes_on_migration_name_each_old_series_and_its_labels() -> None:
    notes = (Path(__file__).parents[2] / "docs/migration.md").read_text()
    rows = re.findall(r"^\| `((?:http|starlette)_\w+)` \| ([^|]*)\|", notes, flags=re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    told["starlette_request_duration_seconds"] = told["starlette_requests_total"]
    del told["http_request_size_bytes"]  # named as what is not there
    made = {
        metric.series: set(metric.label_names)
        for peer in (PFI, EXPORTER)
        for metric in aliases(peer).metrics
    }
    assert told == made


def test_a_service_without_requests_has_no_old_series_but_the_gauge() -> None:
    assert [name for name, _ in _scraped(aliases(PFI), isolated())] == ["http_requests_inprogress"]


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(InstrumentError, match="'statsd' is not known; take one of prometheus-"):
        aliases("statsd")


def test_a_catalogue_that_declares_an_old_name_itself_is_refused() -> None:
    mine = Metric(
        name="http.requests", kind=Kind.COUNTER, unit="{request}", help="Mine.", owner="shop"
    )
    with pytest.raises(InstrumentError, match="shop declares http_requests_total as well"):
        aliases(PFI).check(Catalogue(service="shop", metrics=(mine,)))
    aliases(EXPORTER).check(Catalogue(service="shop", metrics=(mine,)))


def test_instrumenting_again_with_the_same_is_nothing_to_tell() -> None:
    shop = isolated(service="shop")
    assert instrumented_again(shop, service_name="shop", catalogue=None) == ""
    same = Catalogue(service="shop")
    assert instrumented_again(shop, service_name="shop", catalogue=same) == ""


def test_instrumenting_again_with_something_else_is_one_sentence() -> None:
    shop = isolated(service="shop")
    other = Catalogue(service="shop", metrics=aliases(PFI).metrics)
    assert instrumented_again(shop, service_name="store", catalogue=None) == (
        "instrument: this app is instrumented already, as shop; the name 'store' is not taken over: "
        "call it once, where the app is made"
    )
    assert "the second catalogue is not taken over" in instrumented_again(
        shop, service_name="shop", catalogue=other
    )
