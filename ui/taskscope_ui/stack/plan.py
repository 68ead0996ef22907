"""Which parts a start has, from what was asked for and what is installed; values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taskscope.testing.engines.spec import HOST
from taskscope_ui.stack import logs_parts, service_parts, watch_parts
from taskscope_ui.stack.credentials import Credentials
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Absent, Part

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parts in the order of the table, those that are not there, and where each name is opened."""

    parts: tuple[Part, ...]
    absent: tuple[Absent, ...]
    addresses: Mapping[str, str]

    def part(self, name: str) -> Part | None:
        """The part of that name, None if this start has none."""
        return next((part for part in self.parts if part.name == name), None)


def plan(
    options: UpOptions,
    *,
    layout: Layout,
    ports: Mapping[str, int],
    credentials: Credentials,
    engines: Engines,
) -> Plan:
    """What this start runs; a server that is not installed becomes an `Absent` and the rest goes on."""
    logs = logs_parts.plan(options, layout, ports, credentials, engines)
    kept = any(isinstance(item, Part) for item in logs)
    reader = logs_parts.client(layout, ports, logs_parts.READER_USER) if kept else {}
    found = (
        *service_parts.plan(options, layout, ports, engines),
        *watch_parts.plan(options, layout, ports, engines, reader),
        *logs,
    )
    parts = tuple(item for item in found if isinstance(item, Part))
    addresses = {part.name: part.address for part in parts if part.address}
    if any(part.name == "api-1" for part in parts):
        addresses["api"] = f"http://{HOST}:{ports['api']}"
    return Plan(
        parts=parts,
        absent=tuple(item for item in found if isinstance(item, Absent)),
        addresses=addresses,
    )
