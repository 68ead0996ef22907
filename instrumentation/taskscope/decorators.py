"""`timed`, `counted`, `in_flight`: decorators and context managers that measure what they surround.

For functions that are defined before any app exists: which instruments they write to is found at each call.
A call is one run: of a coroutine from its first step to its end, of a generator from the first value asked for
until it is exhausted, closed or fails. A plain function that hands back a coroutine runs until that ends.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial, wraps
from types import CoroutineType, TracebackType
from typing import Any, Self, TypeVar, cast

from taskscope.catalogue import Metric
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.metrics.runs import CANCELLED, Count, Flight, LabelValue, Meter, Run, Time

__all__ = ["Measurement", "counted", "in_flight", "timed"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def timed(
    metric: Metric, *, instruments: Instruments | None = None, **labels: LabelValue
) -> Measurement:
    """How long each run took is observed in the histogram `metric`, in seconds.

    labels: a value for each, or a function of the call's arguments. A label `outcome` that is not given is
    filled: ok, error (any exception) or cancelled; a generator that is closed early is ok.
    instruments: where to measure; by default the current request's app's, or the only ones of the process.
    Raises MetricError at once where metric and labels do not fit.
    """
    return Measurement(Time(metric, instruments, labels))


def counted(
    metric: Metric, *, instruments: Instruments | None = None, **labels: LabelValue
) -> Measurement:
    """Each run is counted in the counter `metric` when it ends, however it ends; else as `timed`."""
    return Measurement(Count(metric, instruments, labels))


def in_flight(
    metric: Metric, *, instruments: Instruments | None = None, **labels: LabelValue
) -> Measurement:
    """The gauge `metric` is how many runs are under way; else as `timed`, but no outcome is filled."""
    return Measurement(Flight(metric, instruments, labels))


class Measurement:
    """A decorator, and a context manager for `with` and `async with`; one may serve any number at once."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._entered: list[tuple[int, Run]] = []

    def __call__(self, function: FunctionT) -> FunctionT:
        """`function`, measured. Raises MetricError for what is no function or method."""
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise MetricError(
                f"{self._meter.metric.name}: {self._meter.word}() cannot measure {function!r}; "
                "decorate a function or a method"
            )
        measured = _shape(function)(self._meter, function)
        _evaluate_signature(measured, function)
        return cast("FunctionT", measured)

    # Each `with` finds its own run again by its frame, which is the same at both of its ends, whatever tasks and
    # threads enter meanwhile. An ExitStack's is not; there the last one entered is taken.

    def __enter__(self) -> Self:
        self._entered.append((id(sys._getframe(1)), Run(self._meter)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._take(id(sys._getframe(1))).__exit__(kind, error, trace)

    def __aenter__(self) -> Coroutine[Any, Any, Self]:
        self._entered.append((id(sys._getframe(1)), Run(self._meter)))
        return _given(self)

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        self._take(id(sys._getframe(1))).__exit__(kind, error, trace)
        return _given(None)

    def _take(self, frame: int) -> Run:
        entered = self._entered
        for pair in reversed(entered.copy()):
            if pair[0] == frame:
                entered.remove(pair)
                return pair[1]
        return entered.pop()[1]


Shape = Callable[[Meter, Callable[..., Any]], Callable[..., Any]]


def _shape(function: Callable[..., Any]) -> Shape:
    plain = inspect.isroutine(function) or isinstance(function, partial)
    called = function if plain else type(function).__call__
    if inspect.isasyncgenfunction(called):
        return _async_generator
    if inspect.iscoroutinefunction(called):
        return _coroutine
    return _generator if inspect.isgeneratorfunction(called) else _function


def _function(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    async def awaited(
        coroutine: Coroutine[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with Run(meter, args, kwargs, CANCELLED):
            return await coroutine

    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        run = Run(meter, args, kwargs)
        with run:
            result = function(*args, **kwargs)
            # Most decorators do not say that what they wrap is a coroutine function.
            run.void = type(result) is CoroutineType
        return awaited(result, args, kwargs) if run.void else result

    return measured


def _coroutine(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        with Run(meter, args, kwargs, CANCELLED):
            return await function(*args, **kwargs)

    return measured


def _generator(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with Run(meter, args, kwargs):
            return (yield from function(*args, **kwargs))

    return measured


def _async_generator(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def measured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with Run(meter, args, kwargs):
            source = function(*args, **kwargs)
            try:
                value = await anext(source)
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        await source.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001 - whatever was thrown is handed in
                        value = await source.athrow(error)
                    else:
                        value = await source.asend(sent)
            except StopAsyncIteration:
                return

    return measured


async def _given(value: Any) -> Any:
    return value


def _evaluate_signature(measured: Any, function: Callable[..., Any]) -> None:
    """Annotations that are texts are read in the function's own module, not in this one.

    Older FastAPI looks their names up in the module of the function that it was given.
    """
    if any(isinstance(each, str) for each in getattr(function, "__annotations__", {}).values()):
        try:
            measured.__signature__ = inspect.signature(function, eval_str=True)
        except Exception:  # noqa: BLE001 - names that only a type checker sees: they stay texts
            return
