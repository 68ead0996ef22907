"""The runbooks of a folder as plain text, at the address by which alerts and boards link them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

__all__ = ["PREFIX", "runbook"]

PREFIX: Final = "/public/runbooks/"
"""Where Grafana serves a folder that is mounted into its own static files: both answer at one address."""

_NAME = re.compile(r"[A-Za-z0-9]{1,100}\.md\Z")
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MOST_BYTES: Final = 256 * 1024


def runbook(folder: Path, name: str) -> bytes | None:
    """The text of the runbook of that file name, at most 256 KiB; None where the folder has no such plain file."""
    if not _NAME.match(name):
        return None
    try:
        fd = os.open(folder / name, _FLAGS)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(_MOST_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else None
