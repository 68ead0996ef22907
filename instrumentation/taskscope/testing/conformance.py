"""Whether what a service emits is what its catalogue declares, and which declared metrics a test never moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Sample

from taskscope.catalogue import Catalogue, Kind, Metric
from taskscope.catalogue.builtin import BUILTIN, LIBRARY_ERRORS
from taskscope.catalogue.groups import GROUPS
from taskscope.catalogue.metric import OVERFLOW

__all__ = ["Conformance", "Measured", "conformance"]

_LIBRARYS: frozenset[str] = frozenset(metric.name for metric in (*BUILTIN, *GROUPS))


class Measured(Protocol):
    """What has a catalogue and a registry; a Telemetry and Instruments do."""

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def registry(self) -> CollectorRegistry: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """What was found. faults: a sentence each; empty when all that is emitted is declared.

    unmoved: the service's own metrics that hold nothing, or 0 alone; the library's are not among them. A gauge
    that stands at 0 may have come back to it, so it is not among them either.
    """

    faults: tuple[str, ...]
    unmoved: tuple[Metric, ...]

    def check(self, *, moved: bool = False) -> None:
        """Raises AssertionError naming all faults. moved: a metric that was never moved is one too."""
        lazy = [
            f"{metric.name}: it is declared and nothing moved it; measure it, or declare it no more"
            for metric in self.unmoved
            if moved
        ]
        if self.faults or lazy:
            raise AssertionError("\n".join((*self.faults, *lazy)))


def conformance(measured: Measured, *, target: str = "service") -> Conformance:
    """What the registry holds now, against the catalogue.

    A fault is a series that no metric of `target` declares, a label that is missing or too many, a value outside
    of those that a label lists, one that was folded because it went beyond its label's bound, and an error that
    the library kept from a request.
    """
    declared = {
        name: metric
        for metric in measured.catalogue.all_metrics
        if metric.target == target
        for name in metric.exposed
    }
    samples = [sample for family in measured.registry.collect() for sample in family.samples]
    faults = dict.fromkeys(
        fault for sample in samples for fault in _faults(sample, declared.get(sample.name))
    )
    moved = {
        metric.name
        for sample in samples
        if (metric := declared.get(sample.name)) is not None
        and (sample.value or metric.kind is Kind.GAUGE)
    }
    own = dict.fromkeys(declared.values())
    return Conformance(
        faults=tuple(faults),
        unmoved=tuple(
            metric for metric in own if metric.name not in moved and metric.name not in _LIBRARYS
        ),
    )


def _faults(sample: Sample, metric: Metric | None) -> Iterator[str]:
    if metric is None:
        yield f"{sample.name}: it is emitted and no metric declares it; add it to the catalogue"
        return
    labels = set(sample.labels) - ({"le"} if metric.kind is Kind.HISTOGRAM else set())
    if labels != set(metric.label_names):
        yield (
            f"{sample.name}: it has labels {', '.join(sorted(labels)) or 'none'}; "
            f"{metric.name} declares {', '.join(metric.label_names) or 'none'}"
        )
        return
    for label in metric.labels:
        text = sample.labels[label.prometheus]
        if text == OVERFLOW:
            yield (
                f"{metric.name}: label {label.name} went beyond its bound; "
                f"measure fewer values, or raise its cap of {label.cap}"
            )
        elif label.values and text not in label.values:
            yield f"{metric.name}: label {label.name} has {text!r}; it lists {', '.join(label.values)}"
    if metric.name == LIBRARY_ERRORS.name and sample.value:
        told = ", ".join(sample.labels.values())
        yield f"{metric.name}: {sample.value:g} of {told}; the service's log says what it was"
