"""The lint of PromQL against a catalogue: clean queries pass, each planted fault is named."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Window
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.promql import RECORDED, bad_events, burn_ratio, escape, sli_ratio
from taskscope.testing.promql import known_series, lint, selected_series

PARCELS = Metric(
    name="post.parcels.sent",
    kind=Kind.COUNTER,
    unit="{parcel}",
    help="Parcels that left the house.",
    owner="post",
    labels=(Label("size", values=("small", "large")),),
)
QUEUE = Metric(
    name="post.queue.length",
    kind=Kind.GAUGE,
    unit="{parcel}",
    help="Parcels that wait.",
    owner="post",
)
AVAILABILITY = Objective(
    name="availability",
    title="Requests without a server error",
    metric=REQUEST_DURATION,
    target=Decimal("0.999"),
    window=Window(days=30),
    bad=Match(label="outcome", values=("server_error", "timeout")),
)
LATENCY = Objective(
    name="latency",
    title="Requests under a second",
    metric=REQUEST_DURATION,
    target=Decimal("0.99"),
    window=Window(days=30),
    threshold=Decimal(1),
)
POST = Catalogue(service="post", metrics=(PARCELS, QUEUE), objectives=(AVAILABILITY, LATENCY))
BUCKET = "http_server_request_duration_seconds_bucket"


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (size) (rate(post_parcels_sent_total{job="post", size=~"small|large"}[5m]))',
        'post_queue_length{job="post"} > 3',
        'deriv(post_queue_length{job="post"}[1h])',
        f'histogram_quantile(0.95, sum by (le) (rate({BUCKET}{{job="post"}}[5m])))',
        f'sum without (instance, le) (rate({BUCKET}{{job="post", le="+Inf"}}[5m]))',
        'absent(post_parcels_sent_total{job="post"})',
        'count by (instance) (post_parcels_sent_total{job="post"})',
        'max_over_time(sum(rate(post_parcels_sent_total{job="post"}[5m]))[1h:1m])',
        'increase(post_parcels_sent_total{job="post"}[1h:1m])',
        'up{job=~"post|post-shipper"} == 0',
        'ALERTS{service="post", alertstate="firing"}',
        'topk by (size) (3, rate(post_parcels_sent_total{job="post"}[5m]))',
        'sum by (kind) (label_replace(up{job="post"}, "kind", "$1", "instance", "(.*):.*"))',
        'sum by (instance) (up{job="post"}) * on (instance) sum by (instance) (post_queue_length{job="post"})',
        "vector(1)",
        bad_events(POST, AVAILABILITY, "5m"),
        bad_events(POST, LATENCY, "5m"),
        burn_ratio(POST, LATENCY, "1h"),
        sli_ratio(POST, AVAILABILITY, "6h"),
    ],
)
def test_a_right_query_has_no_finding(expr: str) -> None:
    assert lint(POST, "board", expr) == []


@pytest.mark.parametrize(
    ("expr", "finding"),
    [
        ('sum(rate(up{job="post"}[5m])', "board: does not parse: .+; correct the query"),
        (
            'post_queue_lenght{job="post"}',
            "post_queue_lenght is not .+ did you mean post_queue_length",
        ),
        ('zzz{job="post"}', "metric zzz is not in the catalogue; declare it"),
        ('{job="post"}', "a selector names no metric"),
        (
            'post_queue_length{job="post", size="small"}',
            "post_queue_length has no label size; it has job",
        ),
        ('sum by (colour) (up{job="post"})', r"by \(colour\): nothing below has that label"),
        ('sum without (colour) (up{job="post"})', r"without \(colour\): nothing below"),
        (
            'sum by (size) (sum(rate(post_parcels_sent_total{job="post"}[5m])))',
            r"by \(size\): nothing below",
        ),
        (
            'up{job="post"} * on (size) post_queue_length{job="post"}',
            r"on \(size\): not both sides",
        ),
        ('up{job="post"} * ignoring (size) up{job="post"}', r"ignoring \(size\): no side has"),
        (
            'rate(post_parcels_sent_total{job="post", size="huge"}[5m])',
            "no size is 'huge'; .+ small, large",
        ),
        ('rate(post_parcels_sent_total{job="post", size=~"small|huge"}[5m])', "no size is 'huge'"),
        ('rate(post_parcels_sent_total{job="post", size=~"h.*"}[5m])', r"no size is 'h\.\*'"),
        ('rate(post_parcels_sent_total{job="post", size!="huge"}[5m])', "no size is 'huge'"),
        ('rate(post_parcels_sent_total{job="task"}[5m])', "no job is 'task'; it is one of post"),
        (f'sum(rate({BUCKET}{{job="post", le="0.3"}}[5m]))', "no le is '0.3'"),
        (
            'slo:objective:ratio{service="post", slo="speed"}',
            "no slo is 'speed'; .+ availability, latency",
        ),
        ('ALERTS{service="post", alertstate="fire"}', "no alertstate is 'fire'"),
        ('rate(post_queue_length{job="post"}[5m])', r"rate\(\) over the gauge post_queue_length"),
        ('increase(post_queue_length{job="post"}[1h:1m])', r"increase\(\) over the gauge"),
        ('deriv(post_parcels_sent_total{job="post"}[1h])', r"deriv\(\) over the counter"),
        ('delta(post_parcels_sent_total{job="post"}[1h])', r"delta\(\) over the counter"),
        (
            'sum(post_parcels_sent_total{job="post"})',
            "counter post_parcels_sent_total is shown raw",
        ),
        ('max_over_time(post_parcels_sent_total{job="post"}[1h])', "is shown raw"),
        ('rate(sum(post_parcels_sent_total{job="post"})[5m:1m])', r"rate\(\) of an aggregate"),
        (f'histogram_quantile(0.9, sum(rate({BUCKET}{{job="post"}}[5m])))', "without le; keep le"),
        (
            f'histogram_quantile(0.9, {BUCKET}{{job="post"}})',
            r"histogram_quantile\(\) without rate",
        ),
        ("post_queue_length", "post_queue_length is selected without a job matcher"),
        ("slo:objective:ratio", "selected without a service matcher"),
        ('up{job="a" or job="b"}', "`or` inside braces is not PromQL"),
        ('rate(post_parcels_sent_total{job="$team"}[5m])', r"variable \$team is not defined"),
    ],
)
def test_a_planted_fault_is_named_with_its_remedy(expr: str, finding: str) -> None:
    found = lint(POST, "board", expr)

    assert any(re.search(finding, line) for line in found), found


def test_every_finding_begins_with_where_and_says_what_to_do() -> None:
    found = lint(POST, "rules.yml: PostDown", 'rate(post_queue_length{colour="red"}[5m])')

    assert len(found) == 3
    assert all(line.startswith("rules.yml: PostDown: ") and ";" in line for line in found)


def test_a_board_s_rate_must_span_the_rate_interval() -> None:
    fixed = 'rate(post_parcels_sent_total{job="post"}[5m])'
    floating = 'rate(post_parcels_sent_total{job="post"}[$__rate_interval])'

    assert lint(POST, "board", floating, rate_interval=True) == []
    assert lint(POST, "board", fixed, rate_interval=True, instant=True) == []
    assert "write [$__rate_interval]" in lint(POST, "board", fixed, rate_interval=True)[0]


def test_a_counter_may_be_read_raw_where_that_is_said() -> None:
    assert lint(POST, "doctor", 'post_parcels_sent_total{job="post"}', raw_ok=True) == []


def test_variables_stand_for_their_values() -> None:
    expr = 'rate(post_parcels_sent_total{job="post", size=~"$size"}[${range}])'

    assert lint(POST, "board", expr, variables={"size": ".*", "range": "5m"}) == []
    assert lint(POST, "board", expr, variables={"size": "huge", "range": "5m"}) != []


def test_every_declared_and_recorded_series_is_known() -> None:
    known = known_series(POST)

    assert set(RECORDED) <= set(known)
    assert {name for metric in POST.all_metrics for name in metric.exposed} <= set(known)


def test_the_selected_series_of_a_query_are_listed() -> None:
    expr = 'a{job="x"} / on (job) rate({__name__="b_total"}[5m]) or vector(0)'

    assert selected_series(expr) == {"a", "b_total"}


def test_a_query_that_does_not_parse_selects_nothing_and_says_so() -> None:
    with pytest.raises(ValueError, match="braces"):
        selected_series("up{")


@given(st.text(st.characters(exclude_characters="$\x00", exclude_categories=["Cs"]), max_size=40))
def test_any_escaped_value_leaves_the_query_whole(value: str) -> None:
    found = lint(POST, "board", f'up{{job="post", instance="{escape(value)}"}}')

    assert found == []
