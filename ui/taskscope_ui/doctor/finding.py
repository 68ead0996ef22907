"""One thing that is wrong, in one sentence: where, what was found, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """where: the part or folder. what: what was found there. remedy: what mends it, as a command where one does."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)
