"""What a service's Redis clients do: hits, misses, writes, errors, timeouts and the time they take.

redis-py is not imported: a client of `redis` or `redis.asyncio` is watched by its `execute_command` and its
`pipeline`, on the instance. Publish and subscribe go past both and stay untouched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from inspect import iscoroutinefunction
from threading import Lock
from typing import Any, Final, Protocol
from weakref import WeakSet

from taskscope.catalogue.groups import CACHE_DURATION, CACHE_REQUESTS, TTL_CLASSES
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.commands import Command, command_of, hits_and_misses, ttl_class_of, writes_of

__all__ = ["Cache", "CacheProbe"]

_Given = tuple[object, ...]


class Cache(Protocol):
    """A client of redis-py, sync or async."""

    execute_command: Callable[..., Any]
    pipeline: Callable[..., Any]


class CacheProbe:
    """The cache series of one process.

    Each entry that a command reads or writes is one request: `hit` or `miss`, or `write`, also for one that its
    condition (NX, XX) kept from writing. An error or a timeout is one request whatever the command. Deletes and other
    commands that succeed are only timed. A timeout is a command whose answer did not come in the time that the client
    or, by cancelling, its caller gave it. Raises MetricError where the catalogue does not declare the group.
    """

    def __init__(
        self, instruments: Instruments, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        try:
            self.requests: Final = instruments.counter(CACHE_REQUESTS)
            self.durations: Final = instruments.histogram(CACHE_DURATION)
        except MetricError as error:
            raise MetricError(
                f"cache: the catalogue of {instruments.catalogue.service} does not declare its metrics; "
                "add *CACHE of taskscope.catalogue.groups to Catalogue(metrics=…)"
            ) from error
        self.failed: Final = instruments.failed
        self.wall_clock: Final = wall_clock
        self._clients: WeakSet[Any] = WeakSet()
        self._lock = Lock()

    def watch(self, client: Cache, *, name: str = "default", ttl_class: str = "none") -> None:
        """The client's commands and pipelines are among the series from now on; the second time changes nothing.

        name: the cache's, in the label. ttl_class: for how long its entries are kept, as far as a command does
        not say: for reads, errors, and writes into what is there (HSET, INCR, SET … KEEPTTL). Two kinds of
        entries in one Redis are two clients over one connection pool, each with its name and class.
        Raises MetricError for a class that the catalogue does not list and for what is not a client.
        """
        if ttl_class not in TTL_CLASSES:
            raise MetricError(
                f"cache {name}: ttl_class {ttl_class!r} is not known; use one of {', '.join(TTL_CLASSES)}"
            )
        if not (hasattr(client, "execute_command") and hasattr(client, "pipeline")):
            raise MetricError(
                f"cache {name}: {type(client).__name__} is not a client of redis-py; "
                "pass redis.Redis or redis.asyncio.Redis"
            )
        with self._lock:
            if client in self._clients:
                return
            self._clients.add(client)
        meter = _Meter(self, name, ttl_class)
        client.execute_command = _measured(client.execute_command, _Single(meter))
        client.pipeline = _measured_pipelines(client.pipeline, meter)


class _Meter:
    """Writes the series of one client."""

    __slots__ = ("_name", "_probe", "_ttl_class", "failed")

    def __init__(self, probe: CacheProbe, name: str, ttl_class: str) -> None:
        self._probe = probe
        self._name = name
        self._ttl_class = ttl_class
        self.failed = probe.failed

    def count(self, command: Command, given: _Given, answer: object) -> None:
        """One command is counted by its answer, which may be the exception that came instead."""
        if isinstance(answer, BaseException):
            self._add(self._class(command, given), _result_of(answer), 1)
        elif command.operation == "read":
            hits, misses = hits_and_misses(command, given, answer)
            ttl_class = self._class(command, given)
            self._add(ttl_class, "hit", hits)
            self._add(ttl_class, "miss", misses)
        elif command.operation == "write":
            self._add(self._class(command, given), "write", writes_of(command, given))

    def time(self, operation: str, seconds: float) -> None:
        """One round trip took so long."""
        self._probe.durations.at((self._name, operation)).observe(seconds)

    def _class(self, command: Command, given: _Given) -> str:
        if not command.sets_ttl:
            return self._ttl_class
        try:
            return ttl_class_of(
                command, given, now=self._probe.wall_clock(), otherwise=self._ttl_class
            )
        except (ValueError, OverflowError):  # Redis will say so
            return self._ttl_class

    def _add(self, ttl_class: str, result: str, count: int) -> None:
        if count:
            self._probe.requests.at((self._name, ttl_class, result)).inc(count)


class _Watch(Protocol):
    """What is measured of one kind of call."""

    def sent(self, given: _Given) -> Any:
        """What is about to be sent, as `ended` takes it. Never raises."""
        ...

    def ended(self, sent: Any, answer: object, seconds: float) -> None:
        """The call brought this answer or exception. Never raises."""
        ...


class _Single:
    __slots__ = ("_meter",)

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def sent(self, given: _Given) -> _Given:
        return given

    def ended(self, sent: _Given, answer: object, seconds: float) -> None:
        try:
            command = command_of(sent[0])
            self._meter.count(command, sent, answer)
            self._meter.time(command.operation, seconds)
        except Exception as error:  # noqa: BLE001 - measuring never fails a command
            self._meter.failed("probes", error)


class _Piped:
    __slots__ = ("_meter", "_pipeline")

    def __init__(self, meter: _Meter, pipeline: Any) -> None:
        self._meter = meter
        self._pipeline = pipeline

    def sent(self, given: _Given) -> tuple[_Given, ...]:
        del given
        try:
            return tuple([_arguments(entry) for entry in self._pipeline.command_stack])
        except Exception as error:  # noqa: BLE001 - measuring never fails a command
            self._meter.failed("probes", error)
            return ()

    def ended(self, sent: tuple[_Given, ...], answer: Any, seconds: float) -> None:
        if not sent:
            return
        try:
            commands = [command_of(given[0]) for given in sent]
            # Where one command makes the whole execution raise, the caller got no answer to any.
            answers = [answer] * len(sent) if isinstance(answer, BaseException) else answer
            for command, given, one in zip(commands, sent, answers, strict=False):
                self._meter.count(command, given, one)
            operations = {command.operation for command in commands}
            self._meter.time(operations.pop() if len(operations) == 1 else "other", seconds)
        except Exception as error:  # noqa: BLE001 - measuring never fails a command
            self._meter.failed("probes", error)


def _measured(call: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    async def measured_async(*given: Any, **named: Any) -> Any:
        sent = watch.sent(given)
        started = time.perf_counter()
        try:
            answer = await call(*given, **named)
        except BaseException as error:
            watch.ended(sent, error, time.perf_counter() - started)
            raise
        watch.ended(sent, answer, time.perf_counter() - started)
        return answer

    def measured(*given: Any, **named: Any) -> Any:
        sent = watch.sent(given)
        started = time.perf_counter()
        try:
            answer = call(*given, **named)
        except BaseException as error:
            watch.ended(sent, error, time.perf_counter() - started)
            raise
        watch.ended(sent, answer, time.perf_counter() - started)
        return answer

    return measured_async if iscoroutinefunction(call) else measured


def _measured_pipelines(make: Callable[..., Any], meter: _Meter) -> Callable[..., Any]:
    def pipeline(*given: Any, **named: Any) -> Any:
        made = make(*given, **named)
        try:
            immediate = getattr(made, "immediate_execute_command", None)
            made.execute = _measured(made.execute, _Piped(meter, made))
            if immediate is not None:  # what is read between WATCH and MULTI
                made.immediate_execute_command = _measured(immediate, _Single(meter))
        except Exception as error:  # noqa: BLE001 - an unmeasured pipeline works all the same
            meter.failed("probes", error)
        return made

    return pipeline


def _arguments(entry: Any) -> _Given:
    # A cluster's pipeline keeps objects, others keep pairs of arguments and options.
    return tuple(entry.args if hasattr(entry, "args") else entry[0])


def _result_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "timeout"
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return "timeout" if "TimeoutError" in kinds else "error"
