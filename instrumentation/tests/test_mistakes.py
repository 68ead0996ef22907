"""The mistakes that are made first: each is refused at once, in one sentence that ends with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from taskscope import (
    Catalogue,
    Kind,
    Label,
    Metric,
    Settings,
    Telemetry,
    counted,
    in_flight,
    instrument,
    timed,
)
from taskscope.errors import TaskscopeError
from taskscope.testing.server import serving

ORDERS = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were placed.",
    owner="shop",
    labels=(Label("payment", values=("card", "invoice")),),
)
BARE = Catalogue(service="shop", metrics=(ORDERS,))
TEN = "0123456789"


def shop(**given: Any) -> Telemetry:
    wanted: dict[str, Any] = {
        "app": FastAPI(),
        "service_name": "shop",
        "service_version": "1",
        "catalogue": BARE,
        "settings": Settings(),
        "logs": False,
    }
    wanted.update(given)
    return instrument(wanted.pop("app"), **wanted)


def metric(**given: Any) -> Metric:
    wanted: dict[str, Any] = {
        "name": "shop.carts",
        "kind": Kind.COUNTER,
        "unit": "{cart}",
        "help": "Carts.",
        "owner": "shop",
    }
    return Metric(**{**wanted, **given})


def after_its_start() -> None:
    app = FastAPI()
    with serving(app):
        shop(app=app)


def beacon_after_its_start() -> None:
    app = FastAPI()
    telemetry = shop(app=app, catalogue=None)
    with serving(app):
        telemetry.beacon()


def without_parentheses() -> None:
    timed(lambda: None)  # type: ignore[arg-type] # the mistake


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "an undeclared metric": (
        lambda: shop().counter(metric()),
        (
            "shop.carts: the catalogue of shop does not declare it for target service; "
            "add this Metric to Catalogue(metrics=…)"
        ),
    ),
    "a metric of another kind": (
        lambda: shop().gauge(ORDERS),
        "shop.orders: it is a counter, not a gauge; use telemetry.counter(…)",
    ),
    "instrument after the start": (
        after_its_start,
        (
            "instrument: this app has started already; "
            "call it before the first request and before its lifespan"
        ),
    ),
    "a beacon after the start": (
        beacon_after_its_start,
        "beacon: this app has started already; call it where the app is made",
    ),
    "a wrapped app": (
        lambda: shop(app=APIRouter()),
        (
            "instrument: APIRouter is no application of FastAPI or Starlette; "
            "pass the app itself, before anything is wrapped around it"
        ),
    ),
    "a misspelt way of tracing": (
        lambda: shop(tracing="natve"),
        "instrument: tracing is 'natve'; take True, False or 'native'",
    ),
    "a catalogue of another service": (
        lambda: shop(service_name="store"),
        "service_name is 'store' and the catalogue is of 'shop'; give both one name",
    ),
    "an unknown peer": (
        lambda: shop(aliases=("prometheus",)),
        (
            "aliases: 'prometheus' is not known; "
            "take one of prometheus-fastapi-instrumentator, starlette_exporter, or ask for none"
        ),
    ),
    "a short token": (
        lambda: Settings(metrics_token=TEN),
        "setting metrics_token is '10 characters long'; take at least 16 random ones",
    ),
    "a text for a folder": (
        lambda: Settings(spool="/var/spool/shop"),  # type: ignore[arg-type] # the mistake
        "setting spool is '/var/spool/shop'; write Path('/var/spool/shop')",
    ),
    "several wrong variables": (
        lambda: Settings.from_environ(
            {"OTEL_TRACES_SAMPLER_ARG": "ten", "TASKSCOPE_MULTIPROCES_DIR": "/run/shop"}
        ),
        (
            "OTEL_TRACES_SAMPLER_ARG='ten' cannot be read; write a share from 0 to 1; "
            "TASKSCOPE_MULTIPROCES_DIR is not a setting; the settings are TASKSCOPE_ACCESS_LOG, "
        ),
    ),
    "a cache without its group": (
        lambda: shop().watch_cache(object()),  # type: ignore[arg-type] # refused before it is looked at
        (
            "cache: the catalogue of shop does not declare its metrics; "
            "add *CACHE of taskscope.catalogue.groups to Catalogue(metrics=…)"
        ),
    ),
    "jobs without their group": (
        lambda: shop().jobs,
        (
            "jobs: the catalogue of shop does not declare its metrics; "
            "add *JOBS of taskscope.catalogue.groups to Catalogue(metrics=…)"
        ),
    ),
    "a beacon without its group": (
        lambda: shop().beacon(),
        (
            "beacon: the catalogue of shop does not declare its metrics; "
            "add *WEB_VITALS of taskscope.catalogue.groups to Catalogue(metrics=…)"
        ),
    ),
    "a session for an engine": (
        lambda: shop().watch_database(object()),  # type: ignore[arg-type] # the mistake
        "database primary 0: object is not an engine of SQLAlchemy; pass Engine or AsyncEngine",
    ),
    "a decorator of another kind": (
        lambda: timed(ORDERS),
        "shop.orders: it is a counter; timed() takes a histogram",
    ),
    "a gauge's decorator on a counter": (
        lambda: in_flight(ORDERS),
        "shop.orders: it is a counter; in_flight() takes a gauge",
    ),
    "a decorator with a misspelt label": (
        lambda: counted(ORDERS, paymnt="card"),
        "shop.orders: counted() was given labels paymnt; give exactly payment",
    ),
    "a decorator with a value that is not listed": (
        lambda: counted(ORDERS, payment="cheque"),
        "shop.orders: label payment has no value 'cheque'; take one of card, invoice",
    ),
    "one value without its comma": (
        lambda: Label("payment", values=("card")),  # type: ignore[arg-type] # the mistake
        "label payment: values is 'card', which is no tuple; write values=('card',)",
    ),
    "a label without a bound": (
        lambda: Label("user_id"),
        "label user_id has no bound; list its values, or give cap=N and bounded_by='what bounds it'",
    ),
    "one label without its comma": (
        lambda: metric(labels=Label("payment", values=("card",))),
        "which is no tuple of Label; write labels=(Label(…),)",
    ),
    "labels that are texts": (
        lambda: metric(labels=("payment",)),
        "shop.carts: labels is ('payment',), which is no tuple of Label; write labels=(Label(…),)",
    ),
    "buckets in a list": (
        lambda: metric(kind=Kind.HISTOGRAM, unit="s", buckets=[0.1]),
        "shop.carts: buckets is [0.1], which is no tuple; write buckets=(0.1, 1.0)",
    ),
    "metrics in a list": (
        lambda: Catalogue(service="shop", metrics=[ORDERS]),  # type: ignore[arg-type] # the mistake
        "shop: metrics is a list; write a tuple, metrics=(…,)",
    ),
    "milliseconds": (
        lambda: metric(kind=Kind.HISTOGRAM, unit="ms"),
        "shop.carts: unit 'ms' is not a base unit; write s",
    ),
}


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_refused_in_a_sentence_that_ends_with_the_remedy(
    mistake: Callable[[], object], sentence: str
) -> None:
    with pytest.raises(TaskscopeError) as raised:
        mistake()
    assert sentence in str(raised.value)


def test_a_decorator_without_its_metric_names_itself() -> None:
    with pytest.raises(
        TaskscopeError, match=r"timed\(\): <function .*> is no Metric; write @timed"
    ):
        without_parentheses()


def test_what_is_refused_leaves_the_app_to_a_second_try(tmp_path: Path) -> None:
    app = FastAPI()
    with pytest.raises(TaskscopeError):
        shop(app=app, service_name="store")
    assert shop(app=app, settings=Settings(spool=tmp_path)).catalogue is BARE
