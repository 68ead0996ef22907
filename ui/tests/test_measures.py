"""What the page asks, and what it holds the answers against."""

from __future__ import annotations

import pytest

from taskscope.catalogue import Catalogue
from taskscope.catalogue.promql import RECORDED
from taskscope.testing.promql import lint
from taskscope_taskapi.catalogue import CATALOGUE
from taskscope_ui.measures import MEASURES, budgets, data_time, instances, limits, query

QUERIES = [
    *(query(CATALOGUE, measure) for measure in MEASURES),
    budgets(CATALOGUE),
    data_time(CATALOGUE),
    instances(CATALOGUE),
]


@pytest.mark.parametrize("promql", QUERIES)
def test_every_query_of_the_page_names_only_series_that_exist(promql: str) -> None:
    assert lint(CATALOGUE, "page", promql) == []


def test_every_measure_is_a_recorded_series() -> None:
    assert {measure.series for measure in MEASURES} <= set(RECORDED)


def test_limits_are_what_was_promised_and_what_the_instances_carry() -> None:
    assert limits(CATALOGUE, capacity_rps=400, up=2) == {
        "traffic": 800.0,
        "latency": 0.3,
        "errors": 0.001,
        "pool": 1.0,
    }


def test_a_service_without_objectives_has_no_promised_limits() -> None:
    assert set(limits(Catalogue(service="bare"), capacity_rps=10, up=1)) == {"traffic", "pool"}
