"""A thin client of the Prometheus HTTP API: typed answers, bounded questions, errors fit for a page.

Read by the pages and by `doctor`. It never asks for more points or bytes than it can show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from taskscope.errors import TaskscopeError

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Line",
    "Point",
    "Prometheus",
    "QueryRefusedError",
    "Sample",
    "SourceError",
    "UnreachableError",
]

MAX_POINTS: Final = 11_000
"""The most points of one series that Prometheus answers with."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""An answer that is longer is refused: a page needs thousands of numbers, not millions."""

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class SourceError(TaskscopeError):
    """For whoever looks at a page: its source gave no usable answer; says which and what to do."""


class UnreachableError(SourceError):
    """Nothing answers at the address."""


class QueryRefusedError(SourceError):
    """Prometheus answers, but not to this question."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a series at `time`, in seconds since 1970."""

    time: float
    value: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query."""

    labels: Mapping[str, str]
    point: Point


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a range query, oldest point first."""

    labels: Mapping[str, str]
    points: tuple[Point, ...]


class _Series(msgspec.Struct):
    metric: dict[str, str] = {}  # msgspec copies an empty default for each value
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []  # likewise


class _Scalar(msgspec.Struct, tag_field="resultType", tag="scalar"):
    result: tuple[float, str]


class _Vector(msgspec.Struct, tag_field="resultType", tag="vector"):
    result: list[_Series]


class _Matrix(msgspec.Struct, tag_field="resultType", tag="matrix"):
    result: list[_Series]


class _Answer(msgspec.Struct):
    status: str
    data: _Scalar | _Vector | _Matrix | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """The Prometheus at `url`; each question waits at most `timeout_s` seconds.

    A user and password may stand in the URL; no error repeats them.
    """

    url: str
    timeout_s: float = 5.0
    start_with: str = "start it with `taskscope up`, or set PROMETHEUS_URL"
    _decode: msgspec.json.Decoder[_Answer] = field(
        default=msgspec.json.Decoder(_Answer), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SourceError(
                f"PROMETHEUS_URL: {self.shown!r} is no address of a web server; write it as http://127.0.0.1:9090"
            )
        object.__setattr__(self, "url", self.url.rstrip("/"))

    @property
    def shown(self) -> str:
        """The address without a user and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")

    def instant(self, promql: str, *, at: float | None = None) -> tuple[Sample, ...]:
        """Every series that `promql` has at `at`, in seconds since 1970, or now. Raises SourceError."""
        parameters = {"query": promql} if at is None else {"query": promql, "time": f"{at:.3f}"}
        data = self._ask("query", parameters)
        if isinstance(data, _Scalar):
            return (Sample({}, _point(data.result)),)
        if not isinstance(data, _Vector):
            raise QueryRefusedError(f"{promql}: the answer is no instant vector; ask for a range")
        return tuple(Sample(s.metric, _point(s.value)) for s in data.result if s.value is not None)

    def range(self, promql: str, *, start: float, end: float, step_s: float) -> tuple[Line, ...]:
        """Every series of `promql` from `start` to `end`, a point each `step_s` seconds. Raises SourceError."""
        if not 0 < step_s < math.inf or (end - start) / step_s > MAX_POINTS:
            raise QueryRefusedError(
                f"{end - start:.0f} s in steps of {step_s:g} s are more than {MAX_POINTS} points; take a longer step"
            )
        data = self._ask(
            "query_range",
            {
                "query": promql,
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
                "step": f"{step_s:g}",
            },
        )
        if not isinstance(data, _Matrix):
            raise QueryRefusedError(f"{promql}: the answer is no range; ask for an instant")
        return tuple(Line(s.metric, tuple(_point(v) for v in s.values)) for s in data.result)

    def _ask(self, path: str, parameters: dict[str, str]) -> _Scalar | _Vector | _Matrix:
        status, body = self._post(path, {**parameters, "timeout": f"{self.timeout_s:g}s"})
        try:
            answer = self._decode.decode(body)
        except msgspec.MsgspecError as error:
            raise SourceError(
                f"{self.shown} answers {status}, but not as Prometheus does; correct PROMETHEUS_URL"
            ) from error
        if answer.status != "success" or answer.data is None:
            raise QueryRefusedError(
                f"Prometheus at {self.shown} refuses a query ({answer.error[:300] or status}); "
                "see its log, or `taskscope doctor`"
            )
        return answer.data

    def _post(self, path: str, form: dict[str, str]) -> tuple[int, bytes]:
        import httpx2

        address = urlsplit(self.url)
        # A proxy from the environment never stands between a page and its own machine.
        trust = address.hostname not in _LOOPBACK
        # Certificates are read from disk for each client, 45 ms that plain http has no use for.
        verify = address.scheme == "https" or trust
        try:
            with (
                httpx2.Client(timeout=self.timeout_s, trust_env=trust, verify=verify) as client,
                client.stream("POST", f"{self.url}/api/v1/{path}", data=form) as response,
            ):
                return response.status_code, self._bounded(response)
        except httpx2.HTTPError as error:
            raise UnreachableError(
                f"Prometheus at {self.shown} does not answer ({_reason(error)}); {self.start_with}"
            ) from error
        except httpx2.InvalidURL as error:
            raise SourceError(
                f"PROMETHEUS_URL: {self.shown!r} cannot be read; write it as http://127.0.0.1:9090"
            ) from error

    def _bounded(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise SourceError(
                    f"Prometheus at {self.shown} answers with more than {MAX_BYTES >> 20} MiB; ask for fewer series"
                )
        return bytes(body)


def _point(pair: tuple[float, str] | None) -> Point:
    if pair is None:
        return Point(math.nan, math.nan)
    time, value = pair
    return Point(time, float(value))  # Prometheus writes NaN, +Inf and -Inf as Python reads them


def _reason(error: Exception) -> str:
    """What went wrong, in words a reader of the page knows."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.ConnectError):
        text = str(error).lower()
        if "refused" in text or "111" in text:
            return "connection refused"
        if "name" in text or "address" in text:
            return "its host name is not known"
        return "no connection"
    return type(error).__name__
