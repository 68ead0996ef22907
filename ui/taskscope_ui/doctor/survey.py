"""From a stack's folder to the subject that is examined: its parts, its missing programs, its reader's key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope_ui.doctor.subject import Part, Subject
from taskscope_ui.stack import state
from taskscope_ui.stack.logs_parts import READER_USER, SHIPPER_USER

__all__ = ["survey"]

_ENVIRONMENT: Final = "local"
_PROCESSES: Final = frozenset({"starting", "ready", "failed", "down"})
"""The phases of a part that should have a process; a step that is done has none, and one that waits not yet."""


def survey(folder: Path, catalogue: Catalogue) -> Subject:
    """The stack in `folder` as its state file tells it. Raises EngineError for a file that is not ours."""
    found = state.read(folder)
    records = found.parts if found is not None else ()
    now = time.time()
    return Subject(
        folder=folder,
        catalogue=catalogue,
        parts=tuple(
            Part(
                name=record.name,
                pid=record.pid,
                started=record.started,
                url=record.url,
                detail=record.detail,
                log=Path(record.log) if record.log else None,
                starting=record.phase == "starting",
                age_s=max(0.0, now - record.started),
            )
            for record in records
            if record.phase in _PROCESSES
        ),
        missing=tuple(
            (record.name, record.detail, record.remedy)
            for record in records
            if record.phase == "absent" and record.remedy
        ),
        known=found is not None,
        supervised=found is not None and found.runs,
        elasticsearch_auth=_login(folder, READER_USER),
        shipper_auth=_login(folder, SHIPPER_USER),
        data_stream=f"logs-{catalogue.service}-{_ENVIRONMENT}",
    )


def _login(folder: Path, user: str) -> tuple[str, str] | None:
    try:
        word = (folder / "secrets" / f"elasticsearch_{user}").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return user, word.strip()
