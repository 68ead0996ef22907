"""What a service's calls to other services do: how long until the headers came, and what came of them.

httpx is not imported: a Client or AsyncClient of `httpx` or `httpx2` is watched by its transports, on the instance.
Each request that is sent is one value: one for each redirect and each step of an authentication.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import perf_counter
from typing import Any, Final, Protocol
from weakref import WeakSet

from taskscope.catalogue.groups import HTTP_CLIENT_DURATION
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Histogram, Instruments
from taskscope.probes.propagation import LOOPBACK, Audience, headers_to_take_along

__all__ = ["HttpClient", "HttpClientProbe"]

_METHODS: Final = frozenset(HTTP_CLIENT_DURATION.label("http.request.method").values)
_OTHER: Final = "_OTHER"
_LONGEST_HOST: Final = 253
"""Characters of a name in the DNS; what is longer leads nowhere and is no label value."""
_NO_STATUS: Final = ""
"""There was no response: to Prometheus the same as no label."""


class HttpClient(Protocol):
    """A client of httpx or httpx2, sync or async. What it sends through has no public name."""

    _transport: Any
    _mounts: dict[Any, Any]


class HttpClientProbe:
    """The series of all calls of one process. Raises MetricError where the catalogue does not declare them."""

    def __init__(self, instruments: Instruments) -> None:
        try:
            self._durations = instruments.histogram(HTTP_CLIENT_DURATION)
        except MetricError as error:
            raise MetricError(
                f"http client: the catalogue of {instruments.catalogue.service} does not declare its metric; "
                "add *HTTP_CLIENT of taskscope.catalogue.groups to Catalogue(metrics=…)"
            ) from error
        self._failed = instruments.failed
        self._clients: WeakSet[Any] = WeakSet()
        self._lock = Lock()

    def watch(self, client: HttpClient, *, propagate_to: tuple[str, ...] = LOOPBACK) -> None:
        """The client's requests are among the series from now on; the second time changes nothing.

        propagate_to: hosts (`orders.internal`, `.internal`) and networks (`10.0.0.0/8`) that are sent `traceparent`
        and `x-request-id` of what is being served; a header that the caller set stays as it is. By default this
        machine alone. Never baggage, and never on to where such a host redirects, if that is not listed.
        Raises MetricError for an entry that is neither, and for what is not a client of httpx.
        """
        audience = Audience(propagate_to)
        if not (
            hasattr(client, "_transport") and isinstance(getattr(client, "_mounts", None), dict)
        ):
            raise MetricError(
                f"http client: {type(client).__name__} is not a client of httpx; pass Client or AsyncClient"
            )
        with self._lock:
            if client in self._clients:
                return
            self._clients.add(client)
        meter = _Meter(self._durations, self._failed, audience)
        client._transport = _Transport(client._transport, meter)
        for pattern, transport in client._mounts.items():
            if transport is not None:
                client._mounts[pattern] = _Transport(transport, meter)


class _Meter:
    """Writes the series of one client and says what its requests take along. No method raises."""

    __slots__ = ("_audience", "_durations", "_failed")

    def __init__(
        self,
        durations: Histogram,
        failed: Callable[[str, BaseException | None], None],
        audience: Audience,
    ) -> None:
        self._durations = durations
        self._failed = failed
        self._audience = audience

    def outfitted(self, request: Any) -> Any:
        """The request, or one like it with more headers, where its host is among the audience.

        The request itself stays as it is: its headers would go along to wherever a response redirects it.
        """
        try:
            if not self._audience.includes(_host_of(request)):
                return request
            headers = request.headers.copy()
            for name, value in headers_to_take_along():
                if name not in headers:
                    headers[name] = value
            # Neither its constructor nor `copy` keeps a stream that was partly set up.
            like = object.__new__(type(request))
            like.__dict__.update(request.__dict__, headers=headers)
        except Exception as error:  # noqa: BLE001 - the request goes out as it is
            self._failed("probes", error)
            return request
        return like

    def answered(self, request: Any, response: Any, started: float) -> None:
        """The response's headers came."""
        seconds = perf_counter() - started
        try:
            status = int(response.status_code)
            self._record(request, str(status), _outcome_of(status), seconds)
        except Exception as error:  # noqa: BLE001 - measuring never fails a call
            self._failed("probes", error)

    def failed(self, request: Any, error: BaseException, started: float) -> None:
        """No response came."""
        seconds = perf_counter() - started
        try:
            self._record(request, _NO_STATUS, _failure_of(error), seconds)
        except Exception as mistake:  # noqa: BLE001 - the call's own error goes on
            self._failed("probes", mistake)

    def _record(self, request: Any, status: str, outcome: str, seconds: float) -> None:
        method = request.method if request.method in _METHODS else _OTHER
        host = _host_of(request)
        server = host if len(host) <= _LONGEST_HOST else _OTHER
        self._durations.at((method, server, status, outcome)).observe(seconds)


class _Transport:
    """Stands before a transport, sync, async or both; all else is the transport's own."""

    def __init__(self, inner: Any, meter: _Meter) -> None:
        self._inner = inner
        self._meter = meter

    def handle_request(self, request: Any) -> Any:
        sent = self._meter.outfitted(request)
        started = perf_counter()
        try:
            response = self._inner.handle_request(sent)
        except BaseException as error:
            self._meter.failed(request, error, started)
            raise
        self._meter.answered(request, response, started)
        return response

    async def handle_async_request(self, request: Any) -> Any:
        sent = self._meter.outfitted(request)
        started = perf_counter()
        try:
            response = await self._inner.handle_async_request(sent)
        except BaseException as error:
            self._meter.failed(request, error, started)
            raise
        self._meter.answered(request, response, started)
        return response

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # a copy that is not set up yet
            raise AttributeError(name)
        return getattr(self._inner, name)


def _host_of(request: Any) -> str:
    host: str = request.url.host
    return host.lower().removesuffix(".")


def _outcome_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "client_error" if status >= 400 else "ok"


def _failure_of(error: BaseException) -> str:
    if not isinstance(error, Exception):  # a cancelled task, or the end of the process
        return "cancelled"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "timeout" if kinds & {"TimeoutException", "TimeoutError"} else "unreachable"
