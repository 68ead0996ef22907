"""Families of other registries on the same page: metrics that a service made with prometheus_client itself.

Read by `exposition`. A guest never spoils the page: a family whose name is taken, or that cannot be written, is
left out and counted, and the others are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector

from taskscope.catalogue import Metric
from taskscope.errors import MetricError

__all__ = ["Guests", "Registry"]

_END: Final = b"# EOF\n"
_MOST_TOLD: Final = 256
_OF_EVERY_PROCESS: Final = "process_"
"""prometheus_client's default registry has these too; that ours stand for them is no news."""


class Registry(Protocol):
    """A CollectorRegistry of prometheus_client, or a part of one."""

    def collect(self) -> Iterable[Family]: ...


class Guests:
    """What other registries hold, as text to follow ours.

    metrics: ours, whose names are taken. failed: told of each family that is left out, once by its name.
    """

    def __init__(
        self,
        registries: Iterable[Registry],
        *,
        metrics: Iterable[Metric],
        failed: Callable[[str, BaseException | None], None],
    ) -> None:
        self._registries = tuple(registries)
        self._ours = frozenset(
            name for metric in metrics for name in (metric.family, *metric.exposed)
        )
        self._failed = failed
        self._told: set[str] = set()

    def render(self, *, openmetrics: bool) -> bytes:
        """The families as prometheus_client writes them, without an end mark. Never raises."""
        taken = set(self._ours)
        parts = []
        for family in self._families():
            try:
                names = {family.name, *(sample.name for sample in family.samples)}
                if names & taken:
                    self._tell(family.name, sorted(names & taken))
                    continue
                parts.append(_written(family, openmetrics))
                taken |= names
            except Exception as error:  # noqa: BLE001 - it is the service's code, and the page goes on
                self._failed("exposition", error)
        return b"".join(parts)

    def _families(self) -> Iterator[Family]:
        for registry in self._registries:
            try:
                yield from registry.collect()
            except Exception as error:  # noqa: BLE001 - it is the service's code, and the page goes on
                self._failed("exposition", error)

    def _tell(self, family: str, names: list[str]) -> None:
        silent = family.startswith(_OF_EVERY_PROCESS) and names[0] in self._ours
        if silent or family in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(family)
        sentence = f"{family}: {', '.join(names)} is on the page already; rename this metric of prometheus_client's"
        self._failed("exposition", MetricError(sentence))


class _One(Collector):
    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


def _written(family: Family, openmetrics: bool) -> bytes:
    one = _One(family)
    if not openmetrics:
        return generate_latest(one)
    text: bytes = openmetrics_exposition.generate_latest(one)  # type: ignore[no-untyped-call] # without types
    return text.removesuffix(_END)
