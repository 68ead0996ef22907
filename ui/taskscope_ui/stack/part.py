"""What the stack is made of: parts, what they need, and how far each has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from taskscope.testing.engines.spec import Spec

__all__ = ["Absent", "Part", "Phase", "Status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the stack and its place among the others.

    name: the same in the table, the state file, the log's file name and `taskscope up --without`.
    spec: describes the process when its turn has come; may raise EngineError then.
    address: where it answers, "" for a part that nobody asks. what: what it is for, in a few words.
    port: the one that it is asked by, 0 if none. needs: parts that must be ready before; when one cannot be,
    this part does not start. after: parts that must have come up or failed before; this part starts either way.
    step: it does its work and ends with exit code 0, and that is its being ready.
    door: it stands in the table of what a person opens.
    background: it may take minutes (a download); the others are announced without it.
    scraped: job to `host:port`, for Prometheus' target lists.
    """

    name: str
    spec: Callable[[], Spec]
    what: str
    address: str = ""
    port: int = 0
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    door: bool = True
    step: bool = False
    background: bool = False
    scraped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A part that does not run here: why, and the command that would change it ("" where none is needed)."""

    name: str
    what: str
    why: str
    remedy: str = ""


class Phase(Enum):
    """How far a part has come."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    FAILED = "failed"
    DOWN = "down"
    STOPPED = "stopped"

    @property
    def settled(self) -> bool:
        """Whether whoever waits for the part need wait no longer."""
        return self not in (Phase.WAITING, Phase.STARTING)

    @property
    def good(self) -> bool:
        """Whether what needs the part may start."""
        return self in (Phase.READY, Phase.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One part at one moment. pid: also its process group; 0 before it runs. began: names the process with its pid.

    took_s: seconds from its own start until it was ready. detail: why it failed, or what it waits for.
    """

    name: str
    phase: Phase = Phase.WAITING
    detail: str = ""
    pid: int = 0
    began: int = 0
    took_s: float = 0.0
