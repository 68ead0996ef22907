"""What is wrong with a running or half-running stack, and how to mend it."""

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.run import examine
from taskscope_ui.doctor.subject import Part, Subject

__all__ = ["Finding", "Part", "Subject", "examine"]
