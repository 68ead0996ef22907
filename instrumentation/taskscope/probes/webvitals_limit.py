"""How many reports are let in: of all clients together, and of each one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["MAX_CLIENTS", "Limit"]

MAX_CLIENTS: Final = 1_024
"""The most addresses that are remembered; beyond, the one that is silent for longest is forgotten."""

_BURST_S: Final = 20.0
_LONGEST: Final = 64


class Limit:
    """Token buckets: one for all, and one for each of the addresses that were heard last.

    per_second, per_client: how many a second; what twenty seconds allow may come at once, at least one.
    clock: seconds, monotonic. Used by one thread, the event loop's.
    """

    def __init__(self, *, per_second: float, per_client: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._per_second = per_second
        self._per_client = per_client
        self._most = max(1.0, per_second * _BURST_S)
        self._most_of_client = max(1.0, per_client * _BURST_S)
        self._all = (self._most, clock())
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether one more is let in now. client: an address; the empty one is limited with all others only."""
        now = self._clock()
        together = _filled(self._all, now, self._per_second, self._most)
        if not client:
            return self._spend(together, now)
        network = _network(client)
        full = (self._most_of_client, now)
        own = _filled(self._clients.get(network, full), now, self._per_client, self._most_of_client)
        # A client over its own limit takes nothing from the others.
        let_in = own >= 1 and self._spend(together, now)
        self._clients[network] = (own - 1 if let_in else own, now)
        self._clients.move_to_end(network)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        return let_in

    def _spend(self, together: float, now: float) -> bool:
        let_in = together >= 1
        self._all = (together - 1 if let_in else together, now)
        return let_in


def _filled(bucket: tuple[float, float], now: float, per_second: float, most: float) -> float:
    left, at = bucket
    return min(most, left + max(0.0, now - at) * per_second)


def _network(client: str) -> str:
    """The address, for IPv6 its first 64 bits: a home has that many addresses to choose from."""
    try:
        address = ip_address(client)
    except ValueError:
        return client[:_LONGEST]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> 64:x}"
    return client
