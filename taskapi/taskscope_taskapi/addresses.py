"""Who a request comes from: the address behind the proxies that are listed, and nobody else's word for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.requests import HTTPConnection

from taskscope_taskapi.settings import Network

__all__ = ["client_address", "client_key", "is_https"]

Address = IPv4Address | IPv6Address

_MOST_HOPS: Final = 16
_IPV6_HOME: Final = 64


def client_address(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """The right-most hop that is no listed proxy.

    peer: the address at the other end of the socket. forwarded: the values of X-Forwarded-For, in order.
    A hop that is no address ends the search: what lies left of it was written by a stranger.
    """
    here = _address(peer)
    if here is None:
        return "unknown"
    hops = [hop for value in forwarded for hop in value.split(",")]
    for text in reversed(hops[-_MOST_HOPS:]):
        if not _listed(here, trusted):
            break
        hop = _address(text.strip())
        if hop is None:
            break
        here = hop
    return str(here)


def client_key(address: str) -> str:
    """What a limit counts by: an IPv4 address, or the /64 an IPv6 user may roam in freely."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _IPV6_HOME), strict=False))
    return address


def is_https(connection: HTTPConnection, trusted: Sequence[Network]) -> bool:
    """Whether the user's own hop is encrypted, by the socket or by a listed proxy's word."""
    peer = _address(connection.client.host) if connection.client else None
    if peer is not None and _listed(peer, trusted):
        return connection.headers.get("x-forwarded-proto", connection.url.scheme) == "https"
    return connection.url.scheme == "https"


def _address(text: str | None) -> Address | None:
    try:
        found = ip_address(text or "")
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _listed(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
