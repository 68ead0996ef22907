"""Who a request comes from, by the word of listed proxies only."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from starlette.requests import HTTPConnection

from taskscope_taskapi.addresses import client_address, client_key, is_https

TRUSTED = (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1, "], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (None, ["198.51.100.1"], "unknown"),
    ],
)
def test_the_client_is_the_right_most_hop_that_no_listed_proxy_is(
    peer: str | None, forwarded: list[str], found: str
) -> None:
    assert client_address(peer, forwarded, TRUSTED) == found


def test_without_listed_proxies_nobody_is_believed() -> None:
    assert client_address("127.0.0.1", ["198.51.100.1"], ()) == "127.0.0.1"


def test_a_header_of_ten_thousand_hops_costs_no_more_than_a_few() -> None:
    hops = ", ".join(["10.0.0.1"] * 10_000)
    assert client_address("127.0.0.1", [hops], TRUSTED) == "10.0.0.1"


def test_an_ipv6_user_cannot_roam_out_of_a_limit() -> None:
    assert client_key("2001:db8:1:2:aaaa::1") == client_key("2001:db8:1:2:bbbb::2")
    assert client_key("2001:db8:1:2::1") != client_key("2001:db8:1:3::1")


@pytest.mark.parametrize(("peer", "secure"), [("127.0.0.1", True), ("203.0.113.9", False)])
def test_only_a_listed_proxy_may_say_that_the_user_speaks_https(peer: str, secure: bool) -> None:
    connection = HTTPConnection(
        {
            "type": "http",
            "scheme": "http",
            "server": ("a", 80),
            "path": "/",
            "headers": [(b"x-forwarded-proto", b"https")],
            "client": (peer, 1),
        }
    )
    assert is_https(connection, TRUSTED) is secure
