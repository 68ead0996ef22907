"""Metrics, logs, traces, dashboards, alerts and capacity of a service, from one catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskscope.catalogue import Catalogue, Kind, Label, Match, Metric, Objective, Unit, Window
    from taskscope.context import in_context, set_user
    from taskscope.decorators import counted, in_flight, timed
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
    "counted",
    "get_logger",
    "in_context",
    "in_flight",
    "instrument",
    "set_user",
    "timed",
]

# Names are looked up at their first use (PEP 562): who only declares metrics or generates rules from them must not
# pay for the runtime's imports, nor have them installed.
_HOMES: Final = {
    "Settings": "taskscope.settings",
    "Telemetry": "taskscope.wiring",
    "counted": "taskscope.decorators",
    "get_logger": "taskscope.logs",
    "in_context": "taskscope.context",
    "in_flight": "taskscope.decorators",
    "instrument": "taskscope.wiring",
    "set_user": "taskscope.context",
    "timed": "taskscope.decorators",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'taskscope' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "taskscope.catalogue")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
