"""A made-up past holds every series of its catalogue, and is the same for the same end."""

from __future__ import annotations

from taskscope.catalogue import Catalogue, Kind, Label, Metric
from taskscope.catalogue.promql import RECORDED
from taskscope.testing.history import openmetrics

POST = Catalogue(
    service="post",
    metrics=(
        Metric(
            name="post.parcels.sent",
            kind=Kind.COUNTER,
            unit="{parcel}",
            help="Parcels that left the house.",
            owner="post",
            labels=(Label("size", values=("small", "large")),),
        ),
    ),
)


def names(text: str) -> set[str]:
    return {line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")}


def test_every_declared_and_recorded_series_is_there() -> None:
    declared = {name for metric in POST.all_metrics for name in metric.exposed}
    service_level = {name for name, labels in RECORDED.items() if "slo" not in labels}

    assert declared | service_level <= names(openmetrics(POST, end_s=1_000_000, minutes=1))


def test_the_same_end_gives_the_same_bytes() -> None:
    assert openmetrics(POST, end_s=90, minutes=1) == openmetrics(POST, end_s=90, minutes=1)


def test_a_label_value_is_escaped() -> None:
    text = openmetrics(POST, end_s=90, minutes=1, routes=(("GET", 'a"b\\c', "200", "ok"),))

    assert 'http_route="a\\"b\\\\c"' in text
