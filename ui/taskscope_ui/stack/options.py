"""What whoever starts the local stack may choose, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from taskscope.errors import EngineError

__all__ = ["DEFAULT_FOLDER", "PARTS", "PORT_NAMES", "UpOptions"]

DEFAULT_FOLDER: Final = Path(".taskscope")
PORT_NAMES: Final = (
    "api",
    "api-1",
    "api-2",
    "prometheus",
    "alertmanager",
    "elasticsearch",
    "shipper",
    "collector",
    "page",
    "boards",
)
"""The ports that can be given; `api` is the front door: nginx, or the one instance where nginx is missing."""

PARTS: Final = (
    "api",
    "proxy",
    "traffic",
    "prometheus",
    "alertmanager",
    "elasticsearch",
    "page",
    "boards",
)
"""The parts that can be left out; the shipper and the collector go with Elasticsearch."""

_MAX_PORT: Final = 65_535
_MAX_RATE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """One start of the local stack. Raises EngineError naming what cannot be.

    folder: where state, logs, secrets and data are kept (mode 0700). project: where the generated and
    hand-written configuration lies. ports: name to port, each free unless given here.
    duration_s: seconds after which the stack stops by itself; None runs until it is stopped.
    rate: requests per second of the generated traffic; 0 makes none. seed: what the traffic is made from.
    without: parts that are not wanted. usual_ports: take the port people know (9090, 8501, …) where it is free.
    """

    folder: Path = DEFAULT_FOLDER
    project: Path = Path()
    ports: Mapping[str, int] = field(default_factory=dict)
    duration_s: float | None = None
    rate: float = 20.0
    seed: int = 7
    without: frozenset[str] = frozenset()
    usual_ports: bool = True

    def __post_init__(self) -> None:
        for name, port in self.ports.items():
            if name not in PORT_NAMES:
                raise EngineError(
                    f"port {port} is given for {name}, which has none; take one of {', '.join(PORT_NAMES)}"
                )
            if not 0 < port <= _MAX_PORT:
                raise EngineError(
                    f"port {port} for {name} is no port; take one from 1 to {_MAX_PORT}"
                )
        twice = sorted(name for name, port in self.ports.items() if _count(self.ports, port) > 1)
        if twice:
            raise EngineError(f"{' and '.join(twice)} are given the same port; give each its own")
        for name in sorted(self.without):
            if name not in PARTS:
                raise EngineError(f"there is no part {name}; the parts are {', '.join(PARTS)}")
        if not 0 <= self.rate <= _MAX_RATE:
            raise EngineError(f"rate is {self.rate:g} requests per second; take 0 to {_MAX_RATE}")
        if self.duration_s is not None and self.duration_s <= 0:
            raise EngineError(f"duration is {self.duration_s:g} s; take more than 0")


def _count(ports: Mapping[str, int], port: int) -> int:
    return sum(1 for other in ports.values() if other == port)
