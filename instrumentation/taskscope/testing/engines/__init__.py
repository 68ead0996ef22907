"""Real servers on loopback for tests and for the local stack, without containers.

A module a server describes it (`prometheus.prometheus(folder, port=…)` is a `Spec`), `running` runs it.
"""

from taskscope.errors import EngineError
from taskscope.testing.engines.launch import (
    ProcessOptions,
    Running,
    gave_up,
    is_ready,
    members,
    prepare,
    process_options,
    running,
    start,
)
from taskscope.testing.engines.spec import (
    HOST,
    HttpReady,
    LogReady,
    Missing,
    Owner,
    Ready,
    Spec,
    TcpReady,
    free_port,
    free_ports,
    new_password,
)

__all__ = [
    "HOST",
    "EngineError",
    "HttpReady",
    "LogReady",
    "Missing",
    "Owner",
    "ProcessOptions",
    "Ready",
    "Running",
    "Spec",
    "TcpReady",
    "free_port",
    "free_ports",
    "gave_up",
    "is_ready",
    "members",
    "new_password",
    "prepare",
    "process_options",
    "running",
    "start",
]
