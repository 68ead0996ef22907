"""The local stack without containers: start, watch, stop."""

from taskscope_ui.stack.credentials import Credentials
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Absent, Part, Phase, Status
from taskscope_ui.stack.run import Stack, running_stack, up
from taskscope_ui.stack.state import PartRecord, StackState
from taskscope_ui.stack.state import read as read_state

__all__ = [
    "Absent",
    "Credentials",
    "Engines",
    "Part",
    "PartRecord",
    "Phase",
    "Stack",
    "StackState",
    "Status",
    "UpOptions",
    "read_state",
    "running_stack",
    "up",
]
