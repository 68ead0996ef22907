"""For services that measured themselves before: a peer's old series under their old names, beside the catalogue's.

They are derived from the service's own series when it is scraped, so requests pay nothing for them. What the
peer measured and this library does not, or does in other buckets, is left out and never guessed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from taskscope.catalogue import Catalogue, Kind, Label, Metric
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    REQUEST_DURATION,
    RESPONSE_SIZE,
    UNMATCHED_ROUTE,
)
from taskscope.errors import InstrumentError
from taskscope.metrics.store import Reading, Series

__all__ = ["PEERS", "Aliases", "aliases", "instrumented_again"]

_METHOD: Final = Label("method", cap=10, bounded_by="the known methods; all else is _OTHER")
_UNTEMPLATED: Final = "none"
_HIGH_RESOLUTION: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    *(2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)

Labels = Mapping[str, str]
Relabel = Callable[[Labels], tuple[str, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alias:
    """One old metric, summed from the series of one of ours.

    relabel: from our labels, by their Prometheus names, to the old values; None leaves the series out.
    bounds: of a histogram, those of the old ones that ours has as well.
    """

    metric: Metric
    source: Metric
    relabel: Relabel
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """The series of one peer. peer: its name on PyPI."""

    peer: str
    _aliases: tuple[_Alias, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is exposed in addition; the help of each says what it is derived from."""
        return tuple(alias.metric for alias in self._aliases)

    def check(self, catalogue: Catalogue) -> None:
        """Raises InstrumentError if the catalogue declares one of these series itself."""
        taken = {name for metric in catalogue.all_metrics for name in metric.exposed}
        for metric in self.metrics:
            clash = taken.intersection(metric.exposed)
            if clash:
                raise InstrumentError(
                    f"aliases of {self.peer}: the catalogue of {catalogue.service} declares {min(clash)} as well; "
                    "rename that metric, or leave the aliases out"
                )

    def readings(self, own: Iterable[Reading]) -> list[Reading]:
        """The old series as they follow from `own`, the service's readings of one scrape."""
        found = list(own)
        return [reading for alias in self._aliases for reading in _derived(alias, found)]


def aliases(
    peer: str | Aliases, *, app_name: str = "starlette", prefix: str = "starlette"
) -> Aliases:
    """What keeps the default series of `peer` alive: `prometheus-fastapi-instrumentator` or `starlette_exporter`.

    app_name, prefix: what the service gave starlette_exporter's middleware. Aliases made already come back.
    Raises InstrumentError for any other peer.
    """
    if isinstance(peer, Aliases):
        return peer
    if peer == "prometheus-fastapi-instrumentator":
        return Aliases(peer=peer, _aliases=_instrumentator())
    if peer == "starlette_exporter":
        return Aliases(peer=peer, _aliases=_exporter(app_name, prefix))
    raise InstrumentError(
        f"aliases: {peer!r} is not known; take one of {', '.join(PEERS)}, or ask for none"
    )


PEERS: Final = ("prometheus-fastapi-instrumentator", "starlette_exporter")


class _Instrumented(Protocol):
    @property
    def catalogue(self) -> Catalogue: ...


def instrumented_again(
    telemetry: _Instrumented, *, service_name: str, catalogue: Catalogue | None
) -> str:
    """What a second `instrument` of one app asked for in vain, as one sentence; empty if it asked for the same."""
    first = telemetry.catalogue
    if service_name != first.service:
        asked = f"the name {service_name!r} is not taken over"
    elif catalogue is not None and catalogue != first:
        asked = "the second catalogue is not taken over"
    else:
        return ""
    return (
        f"instrument: this app is instrumented already, as {first.service}; {asked}: "
        "call it once, where the app is made"
    )


def _derived(alias: _Alias, own: list[Reading]) -> list[Reading]:
    names = alias.source.label_names
    sums: dict[tuple[str, ...], list[float]] = {}
    for reading in own:
        if reading.series.metric.name != alias.source.name:
            continue
        values = alias.relabel(dict(zip(names, reading.series.values, strict=True)))
        if values is None:
            continue
        cells = _cells(alias, reading)
        known = sums.get(values)
        sums[values] = (
            cells if known is None else [a + b for a, b in zip(known, cells, strict=True)]
        )
    return [
        Reading(Series(alias.metric, values, alias.bounds), cells, {})
        for values, cells in sums.items()
    ]


def _cells(alias: _Alias, reading: Reading) -> list[float]:
    if alias.source.kind is not Kind.HISTOGRAM:
        return list(reading.cells)
    counts = reading.cells[:-1]
    if alias.metric.kind is Kind.COUNTER:
        return [sum(counts)]
    cells = [0.0] * (len(alias.bounds) + 2)
    for bound, count in zip(reading.series.bounds, counts, strict=False):
        cells[bisect_left(alias.bounds, bound)] += count
    cells[-2] += counts[-1]  # above all bounds
    cells[-1] = reading.cells[-1]
    return cells


def _instrumentator() -> tuple[_Alias, ...]:
    handler = Label("handler", cap=200, bounded_by="the routes; none for all that match none")
    status = Label("status", values=("1xx", "2xx", "3xx", "4xx", "5xx"))

    def handled(labels: Labels) -> str:
        route = labels["http_route"]
        return _UNTEMPLATED if route == UNMATCHED_ROUTE else route

    def counted(labels: Labels) -> tuple[str, ...]:
        group = f"{labels['http_response_status_code'][0]}xx"
        return labels["http_request_method"], group, handled(labels)

    def timed(labels: Labels) -> tuple[str, ...]:
        return labels["http_request_method"], handled(labels)

    def sized(labels: Labels) -> tuple[str, ...]:
        return (handled(labels),)

    def alone(_labels: Labels) -> tuple[str, ...]:
        return ()

    return (
        _count("http.requests", (_METHOD, status, handler), counted),
        _time("http.request.duration", (_METHOD, handler), timed, (0.1, 0.5, 1.0)),
        _time("http.request.duration.highr", (), alone, _HIGH_RESOLUTION),
        _size("http.response.size", (handler,), sized),
        _now("http.requests.inprogress", (), alone),
    )


def _exporter(app_name: str, prefix: str) -> tuple[_Alias, ...]:
    path = Label("path", cap=200, bounded_by="the routes; what matches none is left out")
    status = Label("status_code", cap=64, bounded_by="the status codes the service answers with")
    app = Label("app_name", cap=1, bounded_by="one name in a process")
    names = (_METHOD, path, status, app)

    def labelled(labels: Labels) -> tuple[str, ...] | None:
        route = labels["http_route"]
        if route == UNMATCHED_ROUTE:
            return None
        status = labels["http_response_status_code"]
        return labels["http_request_method"], route, status, app_name

    def alone(_labels: Labels) -> tuple[str, ...]:
        return (app_name,)

    return (
        _count(f"{prefix}.requests", names, labelled),
        _time(f"{prefix}.request.duration", names, labelled, REQUEST_DURATION.buckets),
        _now(f"{prefix}.requests.in_progress", (app,), alone),
    )


def _old(
    name: str, kind: Kind, unit: str, labels: tuple[Label, ...], relabel: Relabel, source: Metric
) -> _Alias:
    metric = Metric(
        name=name,
        kind=kind,
        unit=unit,
        help=f"The old name of what {source.series} says.",
        owner="taskscope",
        subsystem="http",
        labels=labels,
        buckets=source.buckets if kind is Kind.HISTOGRAM else (),
    )
    return _Alias(metric=metric, source=source, relabel=relabel)


def _count(name: str, labels: tuple[Label, ...], relabel: Relabel) -> _Alias:
    return _old(name, Kind.COUNTER, "{request}", labels, relabel, REQUEST_DURATION)


def _time(
    name: str, labels: tuple[Label, ...], relabel: Relabel, bounds: tuple[float, ...]
) -> _Alias:
    """bounds: the peer's, of which only those are shown that are ours as well: nothing is known of the others."""
    alias = _old(name, Kind.HISTOGRAM, "s", labels, relabel, REQUEST_DURATION)
    shared = tuple(bound for bound in bounds if bound in REQUEST_DURATION.buckets)
    return replace(alias, bounds=shared)


def _size(name: str, labels: tuple[Label, ...], relabel: Relabel) -> _Alias:
    """The peer's is a summary, which has count and sum; so has a histogram whose one bucket holds everything."""
    return _old(name, Kind.HISTOGRAM, "By", labels, relabel, RESPONSE_SIZE)


def _now(name: str, labels: tuple[Label, ...], relabel: Relabel) -> _Alias:
    return _old(name, Kind.GAUGE, "{request}", labels, relabel, ACTIVE_REQUESTS)
