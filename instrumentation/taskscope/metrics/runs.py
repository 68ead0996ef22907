"""One run of measured code, and the three things that can be measured of it: time, count, how many at once.

Read by `decorators`, which knows what a run is for functions, coroutines and generators. What fails in here is
counted and never reaches the measured code, unless its instruments are strict, as in tests.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol

from taskscope.catalogue import Kind, Metric
from taskscope.errors import MetricError
from taskscope.metrics.current import instruments_for
from taskscope.metrics.exemplars import current_exemplar
from taskscope.metrics.instruments import Instruments

__all__ = ["CANCELLED", "OK", "Count", "Flight", "LabelValue", "Meter", "Run", "Time"]

OK: Final = "ok"
CANCELLED: Final = "cancelled"
_ERROR: Final = "error"
_OUTCOME: Final = "outcome"
_ORDINARY_ENDS: Final = (StopIteration, StopAsyncIteration)
_log = logging.getLogger(__name__)

LabelValue = str | Callable[..., object]
"""A label's value, or a function of the call's own arguments that gives it."""


class _Lowered(Protocol):
    def dec(self, amount: float = ...) -> None: ...


class Run:
    """One run under way, from its making to the end of its `with` block.

    closed: the outcome of a run that ends by GeneratorExit. void: set where nothing was run after all.
    """

    __slots__ = (
        "_closed",
        "_meter",
        "_started_at",
        "instruments",
        "lowered",
        "outcome",
        "seconds",
        "values",
        "void",
    )

    def __init__(
        self,
        meter: Meter,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        closed: str = OK,
    ) -> None:
        self._meter = meter
        self._closed = closed
        self.lowered: _Lowered | None = None
        self.values: tuple[str, ...] | None = None
        self.outcome = OK
        self.seconds = 0.0
        self.void = False
        self.instruments = meter.instruments()
        if self.instruments is not None:
            try:
                if not meter.constant:
                    self.values = meter.values(args, kwargs or {})
                meter.begun(self.instruments, self)
            except Exception as error:  # noqa: BLE001 - a fault of ours never fails the measured code
                _report(self.instruments, error)
                self.instruments = None
        self._started_at = perf_counter()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.instruments is None:
            return
        self.seconds = perf_counter() - self._started_at
        try:
            if kind is not None:
                self.outcome = self._outcome(kind)
            self._meter.ended(self.instruments, self)
        except Exception as failure:  # noqa: BLE001 - a fault of ours never fails the measured code
            _report(self.instruments, failure)

    def _outcome(self, kind: type[BaseException]) -> str:
        if issubclass(kind, GeneratorExit):
            return self._closed
        if issubclass(kind, CancelledError):
            return CANCELLED
        return OK if issubclass(kind, _ORDINARY_ENDS) else _ERROR


class Meter:
    """What is measured of each run, and with which labels. Raises MetricError where metric and labels do not fit."""

    kind: ClassVar[Kind]
    word: ClassVar[str]
    fills_outcome: ClassVar[bool] = True

    def __init__(
        self, metric: Metric, instruments: Instruments | None, labels: dict[str, LabelValue]
    ) -> None:
        declared: object = metric  # `@timed` without its metric hands over the function
        if not isinstance(declared, Metric):
            raise MetricError(
                f"{self.word}(): {declared!r} is no Metric; write @{self.word}(METRIC)"
            )
        self.metric = metric
        self._fixed = instruments
        self._told = False
        names = metric.label_names
        self._automatic = self.fills_outcome and _OUTCOME in names and _OUTCOME not in labels
        self._check(labels)
        if instruments is not None:
            self.series(instruments)
        self._at = names.index(_OUTCOME) if self._automatic else -1
        self._sources = [labels.get(name, "") for name in names]
        self.constant = not any(map(callable, self._sources))
        texts = [str(source) for source in self._sources]
        self._ends = {each: self._fill(texts, each) for each in (OK, _ERROR, CANCELLED)}

    def instruments(self) -> Instruments | None:
        """Where this is measured now; None, said once, where nothing was instrumented."""
        found = self._fixed or instruments_for(self.metric)
        if found is None and not self._told:
            self._told = True
            _log.warning(
                "%s: there is nothing to measure with, so this is left out; call instrument() first, "
                "or give %s() instruments=telemetry.instruments where a process has several apps",
                self.metric.name,
                self.word,
            )
        return found

    def values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """The labels' values of one call, the outcome still empty."""
        return tuple(
            [
                str(source(*args, **kwargs)) if callable(source) else source
                for source in self._sources
            ]
        )

    def series(self, instruments: Instruments) -> object:
        """The metric's series there. Raises MetricError if it is not declared."""
        raise NotImplementedError

    def begun(self, instruments: Instruments, run: Run) -> None:
        """A run begins; a metric that is not declared is found out now, before the code has run."""
        del run
        self.series(instruments)

    def ended(self, instruments: Instruments, run: Run) -> None:
        """A run has ended."""
        raise NotImplementedError

    def _at_end(self, run: Run) -> tuple[str, ...]:
        if run.values is None:
            return self._ends[run.outcome]
        return self._fill(list(run.values), run.outcome)

    def _fill(self, values: list[str], outcome: str) -> tuple[str, ...]:
        if self._automatic:
            listed = self.metric.label(_OUTCOME).values
            values[self._at] = _ERROR if listed and outcome not in listed else outcome
        return tuple(values)

    def _check(self, labels: dict[str, LabelValue]) -> None:
        metric = self.metric
        if metric.kind is not self.kind:
            raise MetricError(
                f"{metric.name}: it is a {metric.kind.value}; {self.word}() takes a {self.kind.value}"
            )
        filled = {_OUTCOME} if self._automatic else set()
        needed = [name for name in metric.label_names if name not in filled]
        if set(labels) != set(needed):
            raise MetricError(
                f"{metric.name}: {self.word}() was given labels {', '.join(sorted(labels)) or 'none'}; "
                f"give exactly {', '.join(needed) or 'none'}"
            )
        for name, value in labels.items():
            listed = metric.label(name).values
            if listed and not callable(value) and value not in listed:
                raise MetricError(
                    f"{metric.name}: label {name} has no value {value!r}; take one of {', '.join(listed)}"
                )
        outcomes = metric.label(_OUTCOME).values if self._automatic else ()
        if outcomes and not {OK, _ERROR} <= set(outcomes):
            raise MetricError(
                f"{metric.name}: {self.word}() fills label outcome with ok, error or cancelled, and it lists "
                f"{', '.join(outcomes)}; list those, or give outcome=…"
            )


class Time(Meter):
    """How long each run took, in a histogram of seconds."""

    kind = Kind.HISTOGRAM
    word = "timed"

    def series(self, instruments: Instruments) -> object:
        """The histogram."""
        return instruments.histogram(self.metric)

    def ended(self, instruments: Instruments, run: Run) -> None:
        """Its time is observed."""
        if not run.void:
            child = instruments.histogram(self.metric).at(self._at_end(run))
            child.observe(run.seconds, current_exemplar(run.seconds))

    def _check(self, labels: dict[str, LabelValue]) -> None:
        super()._check(labels)
        if self.metric.unit != "s":
            raise MetricError(
                f"{self.metric.name}: its unit is {self.metric.unit}; timed() takes a histogram of seconds, unit='s'"
            )


class Count(Meter):
    """How many runs have ended, in a counter."""

    kind = Kind.COUNTER
    word = "counted"

    def series(self, instruments: Instruments) -> object:
        """The counter."""
        return instruments.counter(self.metric)

    def ended(self, instruments: Instruments, run: Run) -> None:
        """It is counted."""
        if not run.void:
            instruments.counter(self.metric).at(self._at_end(run)).inc(1, current_exemplar(1))


class Flight(Meter):
    """How many runs are under way, in a gauge."""

    kind = Kind.GAUGE
    word = "in_flight"
    fills_outcome = False

    def series(self, instruments: Instruments) -> object:
        """The gauge."""
        return instruments.gauge(self.metric)

    def begun(self, instruments: Instruments, run: Run) -> None:
        """There is one more."""
        child = instruments.gauge(self.metric).at(self._at_end(run))
        child.inc()
        run.lowered = child

    def ended(self, instruments: Instruments, run: Run) -> None:
        """There is one less of the same labels."""
        del instruments
        if run.lowered is not None:
            run.lowered.dec()


def _report(instruments: Instruments, error: Exception) -> None:
    if isinstance(error, MetricError) and getattr(instruments, "strict", False):
        raise error
    instruments.failed("metrics", error)
