"""Whose word about a trace is believed: callers within the networks that the settings list."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

__all__ = ["Hops"]

_REMEMBERED: Final = 1_024


class Hops:
    """Networks of callers that are trusted; by default none is.

    The caller is the one that the server names as `client`. uvicorn puts the address of `X-Forwarded-For` there
    if its own settings trust the proxy, and then it is the proxy's client that has to be listed.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(each) for each in networks)
        self._known: dict[str, bool] = {}

    def trust(self, client: object) -> bool:
        """Whether the caller, an ASGI scope's `client`, is within one of the networks."""
        if not self._networks or not isinstance(client, (tuple, list)) or not client:
            return False
        host = str(client[0])
        trusted = self._known.get(host)
        if trusted is None:
            trusted = self._within(host)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[host] = trusted
        return trusted

    def _within(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:  # a test client's name, a socket's path
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
