"""Where lines go that Elasticsearch can never take: a file beside the spool, each line with the server's reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from taskscope.logs.segments import Line
from taskscope_exporters.logs.bulk import Verdict

__all__ = ["FILE_NAME", "bury"]

FILE_NAME: Final = "dead-letters.ndjson"
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def bury(folder: Path, dead: Sequence[tuple[Line, Verdict]]) -> None:
    """The lines are on disk in the folder's dead-letter file, one JSON object each: id, error, line.

    Raises OSError if they are not; then none of them may be acknowledged.
    """
    text = b"".join(
        msgspec.json.encode(
            {
                "id": line.id,
                "error": {"type": verdict.kind, "reason": verdict.reason},
                "line": line.raw.decode("utf-8", "backslashreplace"),
            }
        )
        + b"\n"
        for line, verdict in dead
    )
    fd = os.open(folder / FILE_NAME, _FLAGS, 0o600)
    try:
        while text:
            text = text[os.write(fd, text) :]
        os.fsync(fd)
    finally:
        os.close(fd)
