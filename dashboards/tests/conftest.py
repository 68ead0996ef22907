"""Catalogues that the boards are made from: the task API's, and services unlike it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taskscope.catalogue import Catalogue, Kind, Label, Links, Match, Metric, Objective, Window
from taskscope.catalogue.groups import GROUPS
from taskscope_taskapi.catalogue import CATALOGUE

PAYMENTS = Metric(
    name="shop.payments",
    kind=Kind.COUNTER,
    unit="{payment}",
    help="Payments by result.",
    owner="money",
    labels=(Label("result", values=("paid", "refused")),),
)
WAIT = Metric(
    name="shop.checkout.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time a buyer waits at the checkout.",
    owner="money",
)
BASKETS = Metric(
    name="shop.baskets.open", kind=Kind.GAUGE, unit="{basket}", help="Open baskets.", owner="money"
)
SENT = Metric(
    name="shop.files.sent", kind=Kind.COUNTER, unit="By", help="Bytes of files sent.", owner="files"
)
WEIGHT = Metric(
    name="shop.parcel.weight",
    kind=Kind.HISTOGRAM,
    unit="{gram}",
    help="Weight of parcels.",
    owner="post",
    buckets=(100.0, 1000.0),
)
_WEEK = Window(days=7)

SHOP = Catalogue(
    service="corner-shop",
    metrics=(PAYMENTS, WAIT, BASKETS, SENT, WEIGHT),
    objectives=(
        Objective(
            name="payments",
            title="Payments that succeed",
            metric=PAYMENTS,
            target=Decimal("0.99"),
            window=_WEEK,
            bad=Match(label="result", values=("refused",)),
        ),
        Objective(
            name="checkout",
            title="Checkouts under a second",
            metric=WAIT,
            target=Decimal("0.95"),
            window=_WEEK,
            threshold=Decimal(1),
        ),
        Objective(
            name="checkout-slow",
            title="Checkouts under five seconds",
            metric=WAIT,
            target=Decimal("0.999"),
            window=_WEEK,
            threshold=Decimal(5),
        ),
    ),
    links=Links(runbooks="https://runbooks.example"),
)
BARE = Catalogue(service="bare")
ALL = Catalogue(service="all-of-it", metrics=GROUPS)


@pytest.fixture(params=[CATALOGUE, SHOP, BARE, ALL], ids=lambda catalogue: catalogue.service)
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    """Each of four services: with HTTP objectives, with its own, with nothing declared, with all groups."""
    assert isinstance(request.param, Catalogue)
    return request.param
