"""What the doctor examines: a stack's folder, its parts with their addresses, and the catalogue it should serve."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from taskscope.catalogue import Catalogue

__all__ = ["Part", "Subject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the stack as it was started.

    started: when, in seconds since 1970, as the operating system tells it; a pid alone may have a new owner.
    url: where it answers, or empty for a part without an address. detail: what its supervisor knows of its end.
    starting: its supervisor still waits for it. age_s: seconds since it was started.
    """

    name: str
    pid: int
    started: float
    url: str = ""
    detail: str = ""
    log: Path | None = None
    starting: bool = False
    age_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A stack and all that is needed to ask it.

    missing: parts that cannot run here: name, why, and the command that would change it.
    known: a stack was started here once. supervised: its `taskscope up` runs now.
    elasticsearch_auth: user name and password of the reader, or None where security is off; shipper_auth: likewise.
    need_free_bytes: least free space that each folder of the stack must have.
    """

    folder: Path
    catalogue: Catalogue
    parts: tuple[Part, ...]
    missing: tuple[tuple[str, str, str], ...] = ()
    known: bool = True
    supervised: bool = True
    elasticsearch_auth: tuple[str, str] | None = field(default=None, repr=False)
    shipper_auth: tuple[str, str] | None = field(default=None, repr=False)
    data_stream: str = ""
    need_free_bytes: int = 64 * 1024 * 1024

    def part(self, name: str) -> Part | None:
        """The part of that name, if it was started."""
        return next((part for part in self.parts if part.name == name), None)

    def young(self, names: Iterable[str], age_s: float) -> bool:
        """Whether one of the parts still starts, or was started less than `age_s` seconds ago."""
        return any(part.starting or part.age_s < age_s for part in self.named(names))

    def named(self, names: Iterable[str]) -> tuple[Part, ...]:
        """The parts of those names that were started, in that order."""
        return tuple(part for name in names if (part := self.part(name)) is not None)
