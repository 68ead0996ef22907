"""Metrics, logs, traces, dashboards, alerts and capacity of a service, from one catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Unit, Window
    from taskscope.context import in_context, set_user
    from taskscope.logs import get_logger
    from taskscope.settings import Settings
    from taskscope.wiring import Telemetry, instrument

__all__ = [
    "Catalogue",
    "Kind",
    "Label",
    "Match",
    "Metric",
    "Objective",
    "Settings",
    "Telemetry",
    "Unit",
    "Window",
    "get_logger",
    "in_context",
    "instrument",
    "set_user",
]

# Names are looked up at their first use (PEP 562): who only declares metrics or generates rules from them must not
# pay for the runtime's imports, nor have them installed.
_HOMES: Final = {
    "Settings": "taskscope.settings",
    "Telemetry": "taskscope.wiring",
    "get_logger": "taskscope.logs",
    "in_context": "taskscope.context",
    "set_user": "taskscope.context",
    "instrument": "taskscope.wiring",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'taskscope' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "taskscope.catalogue")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
