"""Which headers a call takes along, and to whom: the trace and the request that it belongs to, never baggage.

To services that are not listed, nothing: trace and request ids tell a third party how one's own services call each
other, and join its logs with ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from re import ASCII
from re import compile as pattern
from typing import Final

from taskscope.context import current_request
from taskscope.errors import MetricError

__all__ = ["LOOPBACK", "Audience", "headers_to_take_along"]

LOOPBACK: Final = ("localhost", "127.0.0.0/8", "::1/128")
"""This machine: whom one tells without being asked to."""

_HOST: Final = pattern(r"\.?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?\Z", ASCII)
_MOST_KNOWN: Final = 256


@dataclass(frozen=True, slots=True)
class Audience:
    """The hosts that are told. entries: `10.0.0.0/8`, `orders.internal`, or `.internal` for all below it.

    A network holds addresses as they stand in the URL: no name is resolved. Raises MetricError for other entries.
    """

    entries: tuple[str, ...]
    _names: frozenset[str] = field(init=False, repr=False)
    _suffixes: tuple[str, ...] = field(init=False, repr=False)
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False)
    _known: dict[str, bool] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.entries, str):
            raise MetricError(
                f"propagate_to: {self.entries!r} is one text; write it as a tuple, ({self.entries!r},)"
            )
        networks, names = [], []
        for entry in self.entries:
            network = _network(entry)
            if network is not None:
                networks.append(network)
            elif _HOST.match(entry.lower()) is None:
                raise MetricError(
                    f"propagate_to: {entry!r} is neither a host nor a network; "
                    "write orders.internal, .internal or 10.0.0.0/8"
                )
            else:
                names.append(entry.lower().removesuffix("."))
        object.__setattr__(self, "_networks", tuple(networks))
        object.__setattr__(self, "_names", frozenset(n for n in names if n[0] != "."))
        object.__setattr__(self, "_suffixes", tuple(n for n in names if n[0] == "."))

    def includes(self, host: str) -> bool:
        """Whether this host, in lower case and without a port, is told."""
        known = self._known.get(host)
        if known is None:
            known = self._decide(host.removesuffix("."))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[host] = known
        return known

    def _decide(self, host: str) -> bool:
        if host in self._names or (self._suffixes and host.endswith(self._suffixes)):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def headers_to_take_along() -> Iterator[tuple[str, str]]:
    """`traceparent` of the span that runs, or else of the request; `x-request-id` of the request."""
    request = current_request.get()
    traceparent = _of_span()
    if traceparent is None and request is not None and request.trace_id and request.span_id:
        flags = "01" if request.sampled else "00"
        traceparent = f"00-{request.trace_id}-{request.span_id}-{flags}"
    if traceparent is not None:
        yield "traceparent", traceparent
    if request is not None:
        yield "x-request-id", request.request_id


def _of_span() -> str | None:
    from opentelemetry.trace import get_current_span

    span = get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None
