"""What the shop declares: its own metrics, and what its customers may expect.

    taskscope build --app shop.catalogue --into deploy

writes its rules, runbooks, boards and configurations from this.
"""

from __future__ import annotations

from decimal import Decimal

from taskscope import Catalogue, Kind, Label, Match, Metric, Objective, Window
from taskscope.catalogue.builtin import REQUEST_DURATION
from taskscope.catalogue.groups import STREAMS

ORDERS = Metric(
    name="shop.orders",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were placed, by how they were paid.",
    owner="shop",
    labels=(Label("payment", values=("card", "invoice")),),
)
PACKING_DURATION = Metric(
    name="shop.packing.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time to pack an order, after its customer was answered.",
    owner="shop",
    labels=(Label("outcome", values=("ok", "error", "cancelled")),),
    buckets=(0.01, 0.1, 1.0, 10.0),
)
PACKING = Metric(
    name="shop.packing.under_way",
    kind=Kind.GAUGE,
    unit="{order}",
    help="Orders that are being packed now.",
    owner="shop",
)
STOCK = Metric(
    name="shop.stock",
    kind=Kind.GAUGE,
    unit="{piece}",
    help="Pieces that can still be ordered.",
    owner="shop",
)

CATALOGUE = Catalogue(
    service="shop",
    metrics=(ORDERS, PACKING_DURATION, PACKING, STOCK, *STREAMS),
    objectives=(
        Objective(
            name="answers",
            title="Requests that are answered without an error of ours",
            metric=REQUEST_DURATION,
            target=Decimal("0.999"),
            window=Window(days=30),
            bad=Match(label="outcome", values=("server_error", "timeout")),
        ),
        Objective(
            name="fast-answers",
            title="Requests that are answered within 300 ms",
            metric=REQUEST_DURATION,
            target=Decimal("0.99"),
            window=Window(days=30),
            threshold=Decimal("0.3"),
        ),
    ),
)
