"""A catalogue holds only what fits together, and is loaded with one clear sentence or not at all."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Target, Window
from taskscope.catalogue.builtin import LOG_AGE, REQUEST_DURATION
from taskscope.errors import CatalogueError, LoadError


def counter(name: str = "shop.orders", **changes: Any) -> Metric:
    return Metric(
        **{
            "name": name,
            "kind": Kind.COUNTER,
            "unit": "{order}",
            "help": "Orders.",
            "owner": "shop",
        }
        | changes
    )


LATENCY = Objective(
    name="latency",
    title="Requests under 300 ms",
    metric=REQUEST_DURATION,
    target=Decimal("0.99"),
    window=Window(days=30),
    threshold=Decimal("0.3"),
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"service": "Shop"}, "not a lower-case slug"),
        ({"service": "s" * 31}, "at most 30"),
        ({"metrics": (counter(), counter(help="Again."))}, "metric shop.orders is declared twice"),
        (
            {"metrics": (counter("shop.orders"), counter("shop_orders"))},
            "series shop_orders_total is declared twice",
        ),
        ({"metrics": (counter("http.server.request.duration"),)}, "is declared twice"),
        (
            {"metrics": (counter(target="worker"),)},
            "no target worker; take one of service, shipper",
        ),
        ({"objectives": (LATENCY, LATENCY)}, "objective latency is declared twice"),
        ({"targets": (Target(name="worker", job="shop"),)}, "target job shop is declared twice"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CatalogueError, match=sentence):
        Catalogue(**{"service": "shop"} | changes)


def test_an_objective_over_an_undeclared_metric_is_refused() -> None:
    stranger = Objective(
        name="sold",
        title="Orders that went through",
        metric=counter(labels=(Label("result", cap=3, bounded_by="the code"),)),
        target=Decimal("0.9"),
        window=Window(days=7),
        bad=Match(label="result", values=("lost",)),
    )
    with pytest.raises(CatalogueError, match="does not declare; add it to metrics"):
        Catalogue(service="shop", objectives=(stranger,))


def test_an_objectives_threshold_is_an_exact_bucket_bound() -> None:
    bounds = Catalogue(service="shop", objectives=(LATENCY,)).buckets(REQUEST_DURATION)
    assert 0.3 in bounds
    assert list(bounds) == sorted(set(bounds))


def test_a_metric_is_found_by_any_of_its_names() -> None:
    shop = Catalogue(service="shop", metrics=(counter(),))
    assert shop.metric("shop_orders_total") is shop.metric("shop.orders")
    assert shop.metric("http_server_request_duration_seconds_bucket") is REQUEST_DURATION
    with pytest.raises(CatalogueError, match="shop_order_total is not in the catalogue of shop"):
        shop.metric("shop_order_total")


def test_the_shippers_series_have_their_own_job() -> None:
    assert Catalogue(service="shop").job(LOG_AGE) == "shop-shipper"
    assert Catalogue(service="shop").job(REQUEST_DURATION) == "shop"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"declared_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("import nowhere_at_all", "no module nowhere_at_all; install it"),
        ("x = 1 / 0", "does not import: ZeroDivisionError: division by zero; mend it"),
        ("raise SystemExit(0)", "does not import: SystemExit: 0; mend it"),
        ("def f(:", "does not import: SyntaxError"),
        ("CATALOGUE = 'no'", "has no Catalogue named CATALOGUE; write CATALOGUE ="),
        (
            "from taskscope.catalogue import Catalogue; CATALOGUE = Catalogue(service='NO')",
            "not a lower-case slug",
        ),
    ],
    indirect=["module"],
)
def test_a_catalogue_that_does_not_load_is_told_in_one_line(module: str, sentence: str) -> None:
    with pytest.raises(LoadError, match=sentence) as told:
        Catalogue.load(module)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "module",
    ["from taskscope.catalogue import Catalogue\nOURS = Catalogue(service='shop')"],
    indirect=True,
)
def test_a_catalogue_is_loaded_by_module_and_name(module: str) -> None:
    assert Catalogue.load(f"{module}:OURS").service == "shop"
