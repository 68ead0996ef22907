"""A port for each name: the one that was given, the one people know, or any free one."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Final

from taskscope.errors import EngineError
from taskscope.testing.engines.spec import HOST, free_ports, taken
from taskscope_ui.stack.options import PORT_NAMES
from taskscope_ui.stack.processes import holder

__all__ = ["USUAL", "Reserved", "choose"]

USUAL: Final = {
    "api": 8000,
    "prometheus": 9090,
    "alertmanager": 9093,
    "page": 8501,
    "boards": 3000,
}
"""The ports by which people know these parts, and at which links in alerts point.

Not 9200: Elasticsearch listens twenty seconds after its start, and another stack could take it meanwhile.
"""


class Reserved:
    """Holds ports between their choice and the start of who listens there, so that no other stack chooses them."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._held: dict[int, socket.socket] = {}
        for port in ports:
            # Without SO_REUSEADDR, so that to others the port looks taken though nobody listens.
            held = socket.socket()
            try:
                held.bind((HOST, port))
            except OSError:  # a connection of an earlier server lingers there; it may be listened on all the same
                held.close()
                continue
            self._held[port] = held

    def release(self, port: int) -> None:
        """`port` may be listened on; to release it again does nothing."""
        if (held := self._held.pop(port, None)) is not None:
            held.close()

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, *_: object) -> None:
        for port in tuple(self._held):
            self.release(port)


def choose(given: Mapping[str, int], *, usual: bool) -> dict[str, int]:
    """A different loopback port for every name.

    Raises EngineError when a given port is in use, naming who holds it.
    """
    for name, port in given.items():
        if taken(port):
            raise EngineError(
                f"port {port} for {name} is in use by {holder(port)}; "
                f"free it or give another with --ports {name}=…"
            )
    ports = dict(given)
    for name, port in USUAL.items() if usual else ():
        if name not in ports and port not in ports.values() and not taken(port):
            ports[name] = port
    missing = [name for name in PORT_NAMES if name not in ports]
    spare = (port for port in free_ports(2 * len(PORT_NAMES)) if port not in ports.values())
    return ports | dict(zip(missing, spare, strict=False))
