"""Whether the stack's folders can be written to, have room, and are closed to other users."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.subject import Subject

__all__ = ["check_folders"]

_MIB = 1024 * 1024
_PRIVATE = ("secrets", "spool")


def check_folders(subject: Subject) -> list[Finding]:
    """Folders that are missing, full, not writable, or readable by others."""
    if not subject.parts:
        return []
    names = ("run", "logs", *_PRIVATE)
    return [
        finding
        for name in names
        for finding in _check(subject.folder / name, subject.need_free_bytes)
    ]


def _check(folder: Path, need_free_bytes: int) -> list[Finding]:
    where = f"folder {folder}"
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "is missing"
        return [
            Finding(
                where=where,
                what=what,
                remedy="stop the stack, remove what is there and run: taskscope up",
            )
        ]
    found = []
    free = shutil.disk_usage(folder).free
    if free < need_free_bytes:
        what = f"has {free // _MIB} MiB free and needs {need_free_bytes // _MIB}"
        found.append(
            Finding(where=where, what=what, remedy=f"free space there; see: du -sh {folder}")
        )
    if os.statvfs(folder).f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        remedy = f"run: chown -R $USER {folder} && chmod u+rwx {folder}"
        found.append(Finding(where=where, what="cannot be written to", remedy=remedy))
    mode = stat.S_IMODE(folder.stat().st_mode)
    if folder.name in _PRIVATE and mode & 0o077:
        what = f"is open to other users (mode {mode:o})"
        found.append(Finding(where=where, what=what, remedy=f"run: chmod 700 {folder}"))
    return found
