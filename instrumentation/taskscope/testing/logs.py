"""Log lines as a test reads them: parsed, in the order they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from taskscope.settings import Settings

__all__ = ["Line", "Lines", "captured_lines", "read_lines"]

Line = dict[str, Any]


def read_lines(spool: Path) -> list[Line]:
    """The lines in a spool folder, oldest first."""
    return [
        msgspec.json.decode(text, type=dict[str, Any])
        for segment in sorted(spool.glob("*.seg"))
        for text in segment.read_bytes().splitlines()
    ]


class Lines:
    """The lines of a spool folder that were written since this was made."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._before = len(read_lines(spool))

    def __call__(self, logger: str = "") -> list[Line]:
        """Those of this logger and of those below it, oldest first; of all loggers by default."""
        written = read_lines(self._spool)[self._before :]
        return [line for line in written if _is_of(line, logger)]


def _is_of(line: Line, logger: str) -> bool:
    name = str(line.get("log.logger", ""))
    return not logger or name == logger or name.startswith(f"{logger}.")


@contextmanager
def captured_lines(
    *, service_name: str = "test", settings: Settings | None = None
) -> Iterator[Callable[[], list[Line]]]:
    """Inside the block all logging leads to a folder of its own; the callable gives the lines so far.

    settings: their spool is replaced; by default everything from DEBUG up is kept.
    """
    from taskscope.logs import configure

    with TemporaryDirectory(prefix="taskscope-lines-") as folder:
        chosen = settings if settings is not None else Settings(log_level="DEBUG")
        pipeline = configure(
            settings=replace(chosen, spool=Path(folder) / "spool"),
            service_name=service_name,
            service_version="0",
            on_line=_ignore,
            on_drop=_ignore,
            on_error=_ignore,
        )
        try:
            yield lambda: read_lines(pipeline.spool.folder)
        finally:
            pipeline.close()


def _ignore(*_told: object) -> None:
    return None
