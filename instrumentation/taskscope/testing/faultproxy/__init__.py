"""Proxies that fail on purpose between a client and its real server, as networks and loaded servers do."""

from taskscope.testing.faultproxy.bulk import BulkFaults, BulkProxy
from taskscope.testing.faultproxy.tcp import TcpProxy

__all__ = ["BulkFaults", "BulkProxy", "TcpProxy"]
