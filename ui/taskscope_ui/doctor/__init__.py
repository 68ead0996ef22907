"""What is wrong with a running or half-running stack, and how to mend it."""

from taskscope_ui.doctor.command import run
from taskscope_ui.doctor.examine import examine
from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.subject import Part, Subject
from taskscope_ui.doctor.survey import survey

__all__ = ["Finding", "Part", "Subject", "examine", "run", "survey"]
