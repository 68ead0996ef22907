"""What a measurement is: a metric, its unit and its labels, checked at birth.

Read by everyone who declares a metric. Write the OpenTelemetry name and the UCUM unit; the Prometheus
names are derived here and typed nowhere a second time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final

from taskscope.errors import MetricError

__all__ = ["DEFAULT_BUCKETS", "OVERFLOW", "Across", "Kind", "Label", "Metric", "Unit"]

OVERFLOW: Final = "__overflow__"
"""The label value into which everything beyond a label's bound is folded."""

DEFAULT_BUCKETS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
"""Seconds. OpenTelemetry's advice for `http.server.request.duration` (semantic conventions 1.27)."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[._][a-z0-9]+)*\Z")
_ANNOTATION = re.compile(r"\{[a-z_]+\}\Z")
_RESERVED_LABELS = frozenset({"le", "quantile", "job", "instance"})
_HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_WELL_KNOWN: Final[dict[str, tuple[tuple[str, ...], int, str]]] = {
    # name: (values, most values, what bounds them)
    "http.request.method": (
        (*_HTTP_METHODS, "_OTHER"),
        10,
        "the methods of RFC 9110 and RFC 5789; all else is _OTHER",
    ),
    "http.route": ((), 200, "the templates of the service's own routes; all else is unmatched"),
    "http.response.status_code": ((), 64, "the status codes the service answers with"),
}


class Kind(Enum):
    """How a metric behaves, in Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(Enum):
    """What a gauge of several worker processes says as one number; counters and histograms are always sums."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Unit:
    """A UCUM code in base units: `s`, `By`, `1` (a ratio from 0 to 1), or a counted thing: `{request}`."""

    code: str

    _SUFFIX: ClassVar[dict[str, str]] = {"s": "seconds", "By": "bytes", "1": "ratio"}
    _REMEDY: ClassVar[dict[str, str]] = {
        "ms": "s",
        "us": "s",
        "ns": "s",
        "min": "s",
        "h": "s",
        "kBy": "By",
        "MiBy": "By",
        "%": "1",
        "": "1",
    }

    def __post_init__(self) -> None:
        if self.code in self._SUFFIX or _ANNOTATION.match(self.code):
            return
        remedy = self._REMEDY.get(self.code, "s, By, 1 or a counted thing such as {request}")
        raise MetricError(f"unit {self.code!r} is not a base unit; write {remedy}")

    @property
    def suffix(self) -> str:
        """What the Prometheus name ends with; empty for counted things."""
        return self._SUFFIX.get(self.code, "")


@dataclass(frozen=True, slots=True)
class Label:
    """One dimension of a metric, bounded by declaration: by its `values`, or by `cap` and what bounds it.

    values: all there are; a series for each is there from the start, at 0. cap: the most different values;
    those that come later, and those that are not listed, are counted as `__overflow__`.
    bounded_by: what keeps them below the cap, for whoever reads the catalogue.
    The HTTP labels of the semantic conventions (`http.request.method`, `http.route`,
    `http.response.status_code`) bring their bound with them. Raises MetricError without a bound.
    """

    name: str
    values: tuple[str, ...] = field(default=(), kw_only=True)
    cap: int = field(default=0, kw_only=True)
    bounded_by: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple):  # a text would be a value for each of its letters
            raise MetricError(
                f"label {self.name}: values is {self.values!r}, which is no tuple; write values=('card',)"
            )
        if not _NAME.match(self.name) or self.prometheus in _RESERVED_LABELS:
            raise MetricError(
                f"label {self.name!r} is not a lower-case dotted name that Prometheus leaves free; rename it"
            )
        if self.name in _WELL_KNOWN and not (self.values or self.cap):
            values, cap, why = _WELL_KNOWN[self.name]
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "cap", cap)
            object.__setattr__(self, "bounded_by", self.bounded_by or why)
        if self.values:
            if len(set(self.values)) != len(self.values):
                raise MetricError(f"label {self.name}: {self.values} repeat; list each value once")
            object.__setattr__(self, "cap", len(self.values))
        elif self.cap < 1 or not self.bounded_by:
            raise MetricError(
                f"label {self.name} has no bound; list its values, or give cap=N and bounded_by='what bounds it'"
            )

    @property
    def prometheus(self) -> str:
        """The label's name in Prometheus: dots become underscores."""
        return self.name.replace(".", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: an OpenTelemetry name, a kind, a unit, and who answers for it.

    name: lower-case words with dots between, `shop.orders`; Prometheus's name is made of it and of the unit.
    unit: `s`, `By`, `1` (a ratio) or a counted thing, `{order}`. help: one sentence. owner: the team.
    labels: a tuple, in the order of `at(…)`. buckets: a histogram's upper bounds in its unit, rising, without
    +Inf; a histogram of seconds has `DEFAULT_BUCKETS`, and each objective's threshold is added.
    subsystem: one word used on every floor (http, runtime, database, logs, self, business, …).
    target: name of the scrape target whose process exposes it (see `Target`).
    across: how a gauge's values of one instance's worker processes become one; only those that live count.
    Raises MetricError at once for a name, unit, label or bucket that is not as it must be.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    owner: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    subsystem: str = "business"
    target: str = "service"
    across: Across = Across.SUM

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise MetricError(
                f"metric {self.name!r} is not a lower-case dotted name; write it as taskapi.tasks.created"
            )
        try:
            Unit(self.unit)
        except MetricError as error:
            raise MetricError(f"{self.name}: {error}") from error
        if not self.help.strip() or not self.help.strip().endswith("."):
            raise MetricError(
                f"{self.name}: help {self.help!r} is no sentence; say in one what is measured"
            )
        if not self.owner:
            raise MetricError(f"{self.name}: nobody owns it; name the team that answers for it")
        self._check_tuples()
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names):
            raise MetricError(f"{self.name}: labels {names} repeat; list each label once")
        if self.kind is not Kind.GAUGE and self.across is not Across.SUM:
            raise MetricError(
                f"{self.name}: workers' {self.kind.value}s are always summed; remove across={self.across}"
            )
        self._check_buckets()

    def _check_tuples(self) -> None:
        labels: object = self.labels  # what is declared is not always what is typed
        if not isinstance(labels, tuple) or not all(isinstance(each, Label) for each in labels):
            raise MetricError(
                f"{self.name}: labels is {labels!r}, which is no tuple of Label; write labels=(Label(…),)"
            )
        bounds: object = self.buckets
        if not isinstance(bounds, tuple):
            raise MetricError(
                f"{self.name}: buckets is {bounds!r}, which is no tuple; write buckets=(0.1, 1.0)"
            )

    def _check_buckets(self) -> None:
        if self.kind is not Kind.HISTOGRAM:
            if self.buckets:
                raise MetricError(f"{self.name}: a {self.kind.value} has no buckets; remove them")
            return
        if not self.buckets:
            if self.unit != "s":
                raise MetricError(
                    f"{self.name}: no buckets for unit {self.unit}; list the bounds, smallest first"
                )
            object.__setattr__(self, "buckets", DEFAULT_BUCKETS)
        rising = all(a < b for a, b in zip(self.buckets, self.buckets[1:], strict=False))
        if not rising or self.buckets[-1] == float("inf"):
            raise MetricError(
                f"{self.name}: buckets {self.buckets} do not rise; list each bound once, smallest first, without +Inf"
            )

    @property
    def base_unit(self) -> Unit:
        """The unit as a value."""
        return Unit(self.unit)

    @property
    def family(self) -> str:
        """The Prometheus family's name, without `_total`, `_bucket`, `_sum` or `_count`."""
        stem = self.name.replace(".", "_")
        if self.kind is Kind.COUNTER:
            stem = stem.removesuffix("_total")
        suffix = "" if self.unit == "1" and self.kind is not Kind.GAUGE else self.base_unit.suffix
        return stem if not suffix or stem.endswith(f"_{suffix}") else f"{stem}_{suffix}"

    @property
    def series(self) -> str:
        """The name a query starts from: `…_total` for a counter, the family's name otherwise."""
        return f"{self.family}_total" if self.kind is Kind.COUNTER else self.family

    @property
    def exposed(self) -> tuple[str, ...]:
        """Every series name that Prometheus stores for it."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.family}_{part}" for part in ("bucket", "count", "sum"))
        return (self.series,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names in Prometheus, in their declared order."""
        return tuple(label.prometheus for label in self.labels)

    @property
    def starts_at_zero(self) -> bool:
        """Whether its series are there before anything happened: every label lists its values."""
        return all(label.values for label in self.labels)

    def label(self, name: str) -> Label:
        """The label of that OpenTelemetry or Prometheus name. Raises MetricError if there is none."""
        for label in self.labels:
            if name in (label.name, label.prometheus):
                return label
        raise MetricError(
            f"{self.name} has no label {name}; it has {', '.join(self.label_names) or 'none'}"
        )
