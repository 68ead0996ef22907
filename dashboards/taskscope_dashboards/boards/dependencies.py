"""Panels of the subsystems that not every service has: open connections, cache, other services.

Each stands for metrics of one group of `taskscope.catalogue.groups`, and is drawn if the catalogue declares them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Match, Metric
from taskscope.catalogue.groups import (
    CACHE_DURATION,
    CACHE_REQUESTS,
    HTTP_CLIENT_DURATION,
    STREAM_BYTES,
    STREAM_DURATION,
    STREAM_MESSAGES,
    STREAM_OPEN,
)
from taskscope.catalogue.promql import any_of
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Panel, Query, Step, rate_unit, unit_of
from taskscope_dashboards.queries import per_second, quantile, share, value

__all__ = ["Made", "cache", "declared", "http_client", "labelled", "streams"]

_P50: Final = Decimal("0.5")
_P95: Final = Decimal("0.95")
_CALL_FAULT: Final = Match(label="outcome", values=("server_error", "timeout", "unreachable"))
_CALL_COLOURS: Final = (
    ("ok", "green"),
    ("client_error", "yellow"),
    ("server_error", "red"),
    ("timeout", "orange"),
    ("unreachable", "purple"),
    ("cancelled", "blue"),
)

Made = tuple[Metric, Panel]


def declared(catalogue: Catalogue, made: tuple[Made, ...]) -> tuple[Panel, ...]:
    """The panels whose metric the catalogue declares."""
    return tuple(panel for metric, panel in made if metric in catalogue.metrics)


def labelled(*names: str) -> str:
    """A legend of these labels' values."""
    return " ".join(f"{{{{{name}}}}}" for name in names)


def streams(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether WebSocket connections and event streams live, what passes over them, and how they end."""
    route, protocol = STREAM_OPEN.label_names
    way = STREAM_MESSAGES.label_names[1:]
    close = STREAM_DURATION.label_names[2]
    opened = Panel(
        title="Open connections",
        description=(
            "WebSocket connections and event streams that are open, by route. A cliff: an instance or the proxy let "
            "all of them go; a line that only rises: clients connect and never leave."
        ),
        unit=unit_of(STREAM_OPEN),
        queries=(
            Query(
                expr=value(catalogue, STREAM_OPEN, by=(route, protocol)),
                legend=labelled(route, protocol),
            ),
        ),
        stacked=True,
    )
    ended = Panel(
        title="Ended connections per second",
        description=(
            "Connections that ended, by how. abnormal: the network or the proxy cut them, look at its time-outs; "
            "server_error: the service did, read its lines; refused: clients without a right to connect."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, STREAM_DURATION, by=(close,)), legend=labelled(close)),
        ),
        stacked=True,
        colours=(("normal", "green"), ("server_error", "red"), ("abnormal", "orange")),
    )
    lifetime = Panel(
        title="Lifetime of a connection",
        description=(
            "How long connections lived that ended. A p50 that falls to one round value is a time-out of the proxy or "
            "of the load balancer: send pings more often, or raise it."
        ),
        unit=unit_of(STREAM_DURATION),
        queries=tuple(
            Query(expr=quantile(catalogue, STREAM_DURATION, q), legend=name)
            for name, q in (("p50", _P50), ("p95", _P95))
        ),
    )
    made = (
        (STREAM_OPEN, opened),
        (STREAM_DURATION, ended),
        (STREAM_DURATION, lifetime),
        (STREAM_MESSAGES, _each_way(catalogue, STREAM_MESSAGES, "Messages per second", way)),
        (STREAM_BYTES, _each_way(catalogue, STREAM_BYTES, "Bytes per second", way)),
    )
    return spread(declared(catalogue, made), per_line=3, height=7)


def _each_way(catalogue: Catalogue, metric: Metric, title: str, way: tuple[str, ...]) -> Panel:
    return Panel(
        title=f"{title} over streams",
        description=(
            f"{metric.help} One way falls silent while connections stay open: clients, or the handler, hang."
        ),
        unit=rate_unit(metric),
        queries=(Query(expr=per_second(catalogue, metric, by=way), legend=labelled(*way)),),
    )


def cache(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether the cache answers, how often it knows, and what it costs."""
    name, _, result = CACHE_REQUESTS.label_names
    operation = CACHE_DURATION.label_names[1]
    reads = f'{result}=~"{any_of(("hit", "miss"))}"'
    hits = Match(label="result", values=("hit",))
    lost = Match(label="result", values=("error", "timeout"))
    ratio = Panel(
        title="Cache hit ratio",
        description=(
            "Share of reads that the cache could answer. A sudden fall: it was emptied, or a release changed its keys; "
            "a slow one: it is too small, or entries end too early."
        ),
        unit="percentunit",
        maximum=Decimal(1),
        queries=(
            Query(
                expr=share(catalogue, CACHE_REQUESTS, hits, by=(name,), matchers=(reads,)),
                legend=labelled(name),
            ),
        ),
    )
    failing = Panel(
        title="Cache operations that fail",
        description=(
            "Share of operations that ended in an error or a time-out. Above 0 the database carries what the cache "
            "would have: look at Redis first, then at the database's pool."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(catalogue, CACHE_REQUESTS, lost, by=(name,)),
                legend=labelled(name),
            ),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.01"))),
    )
    rate = Panel(
        title="Cache operations per second",
        description=(
            "Operations by what came of them. Writes near the misses are usual; many more misses than writes: what is "
            "read is not kept."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, CACHE_REQUESTS, by=(result,)), legend=labelled(result)
            ),
        ),
        stacked=True,
        colours=(
            ("hit", "green"),
            ("miss", "yellow"),
            ("write", "blue"),
            ("error", "red"),
            ("timeout", "orange"),
        ),
    )
    time = Panel(
        title="Cache operations, p95",
        description=(
            "What one operation in twenty takes longer than. Near a database's time the cache saves nothing: a slow "
            "command, a large value, or the network."
        ),
        unit=unit_of(CACHE_DURATION),
        queries=(
            Query(
                expr=quantile(catalogue, CACHE_DURATION, _P95, by=(operation,)),
                legend=labelled(operation),
            ),
        ),
    )
    made = ((CACHE_REQUESTS, ratio), (CACHE_REQUESTS, failing), (CACHE_REQUESTS, rate))
    return spread(declared(catalogue, (*made, (CACHE_DURATION, time))), per_line=4, height=7)


def http_client(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether the services that this one calls answer, and how fast."""
    _, server, _, outcome = HTTP_CLIENT_DURATION.label_names
    failing = Panel(
        title="Calls that fail, by server",
        description=(
            "Share of calls that ended in the other side's error, a time-out, or without a connection. One server: "
            "call its owners; all: the network, or name resolution."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(catalogue, HTTP_CLIENT_DURATION, _CALL_FAULT, by=(server,)),
                legend=labelled(server),
            ),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.01"))),
    )
    time = Panel(
        title="Calls, p95 by server",
        description=(
            "What one call in twenty takes longer than. Requests of ours that make such a call cannot be faster; near "
            "the time-out, they soon fail."
        ),
        unit=unit_of(HTTP_CLIENT_DURATION),
        queries=(
            Query(
                expr=quantile(catalogue, HTTP_CLIENT_DURATION, _P95, by=(server,)),
                legend=labelled(server),
            ),
        ),
    )
    calls = Panel(
        title="Calls per second, by server",
        description=(
            "Calls that this service makes. Many more than its own requests: a call in a loop, or retries that pile up."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, HTTP_CLIENT_DURATION, by=(server,)),
                legend=labelled(server),
            ),
        ),
        stacked=True,
    )
    how = Panel(
        title="Calls per second, by outcome",
        description=(
            "How calls end. client_error: what we send is not taken, look at the last release; cancelled: our own "
            "callers left first."
        ),
        unit="reqps",
        queries=(
            Query(
                expr=per_second(catalogue, HTTP_CLIENT_DURATION, by=(outcome,)),
                legend=labelled(outcome),
            ),
        ),
        stacked=True,
        colours=_CALL_COLOURS,
    )
    made = tuple((HTTP_CLIENT_DURATION, panel) for panel in (failing, time, calls, how))
    return spread(declared(catalogue, made), per_line=4, height=7)
