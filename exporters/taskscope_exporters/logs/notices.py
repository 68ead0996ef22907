"""What a shipper says of the spool it reads, each thing once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskscope.logs.segments import SpoolReader

__all__ = ["Notices"]


@dataclass(slots=True, kw_only=True)
class Notices:
    """Tells `say` what is new since it was asked last."""

    folder: Path
    say: Callable[[str], None]
    _torn: int = 0
    _aside: int = 0
    _later: bool = False
    _unkept: bool = False

    def read(self, reader: SpoolReader) -> None:
        """Half lines that were dropped, files that were set aside and those of a later format are told."""
        if reader.torn > self._torn:
            self.say(
                f"{reader.torn - self._torn} half-written line(s) of a killed process dropped; none had been answered "
                "as written"
            )
            self._torn = reader.torn
        for name in reader.set_aside[self._aside :]:
            self.say(
                f"{name!r} in the spool is no segment of this user; it lies in {self.folder / 'aside'}"
            )
        self._aside = len(reader.set_aside)
        if reader.later and not self._later:
            self.say(
                f"{len(reader.later)} file(s) in the spool, such as {reader.later[0]!r}, are of a later format; they "
                "wait: run the shipper of the version that wrote them"
            )
        self._later = bool(reader.later)

    def unkept(self, error: OSError | None) -> None:
        """What is stored could not be acknowledged on disk, or could be again: told when it begins."""
        if error is not None and not self._unkept:
            self.say(
                f"spool {self.folder} cannot keep what is stored already: {error.strerror}; free the disk, a restart "
                "until then sends lines again under the same ids"
            )
        self._unkept = error is not None
