"""Every error the library raises: where, what was found, the remedy, in one sentence."""

from __future__ import annotations

__all__ = [
    "AuditError",
    "CatalogueError",
    "EngineError",
    "InstrumentError",
    "LoadError",
    "MetricError",
    "MultiprocessError",
    "ObjectiveError",
    "SettingsError",
    "TaskscopeError",
]


class TaskscopeError(Exception):
    """Base of all errors here; its text is fit for a terminal: where, what was found, the remedy."""


class MetricError(TaskscopeError):
    """For the developer who declares a metric: a name, unit, label or bucket is not as it must be."""


class ObjectiveError(TaskscopeError):
    """For the developer who declares an objective: target, window or condition is not as it must be."""


class CatalogueError(TaskscopeError):
    """For the developer who puts metrics and objectives together: two of them do not fit."""


class InstrumentError(TaskscopeError):
    """For the developer who calls `instrument`: the app cannot be instrumented as it is."""


class MultiprocessError(TaskscopeError):
    """For whoever runs several worker processes: the folder that they share is not as it must be."""


class LoadError(TaskscopeError):
    """For whoever names a service on the command line: its catalogue cannot be loaded."""


class SettingsError(TaskscopeError):
    """For whoever sets the environment: one sentence per wrong variable, all at once."""


class EngineError(TaskscopeError):
    """For whoever starts a server: it is not installed, or did not come up; says which and what to do."""


class AuditError(TaskscopeError):
    """For a service that must not act without a trace: the audit line of what it is about to do is not stored."""
