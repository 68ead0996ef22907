"""A port for each name: the one that was given, the one people know, or any free one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskscope.errors import EngineError
from taskscope.testing.engines.spec import free_ports, taken
from taskscope_ui.stack.options import PORT_NAMES
from taskscope_ui.stack.processes import holder

__all__ = ["USUAL", "choose"]

USUAL: Final = {
    "api": 8000,
    "prometheus": 9090,
    "alertmanager": 9093,
    "elasticsearch": 9200,
    "page": 8501,
    "boards": 3000,
}
"""The ports by which people know these parts, and at which links in alerts point."""


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
