"""One log file for each part: a fresh one at each start, the one before kept as `.1`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["fresh", "last_words", "log_path"]

_TAIL_BYTES: Final = 64 * 1024
_MAX_WORDS: Final = 300
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def log_path(folder: Path, name: str) -> Path:
    """Where the part's output goes."""
    return folder / f"{name}.log"


def fresh(path: Path) -> int:
    """A descriptor that adds to a new, empty file; what was there before is now `.1`."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def last_words(path: Path, complaint: str) -> str:
    """The last line that matches `complaint`, else the last line, without terminal codes; "" if there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [clean for line in text.splitlines() if (clean := _ESCAPES.sub("", line).strip())]
    complaints = [line for line in lines if re.search(complaint, line)]
    return (complaints or lines or [""])[-1][:_MAX_WORDS]
