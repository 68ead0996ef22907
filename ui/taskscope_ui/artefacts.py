"""What is generated from a catalogue, as files: collected, written, and compared with what lies on disk.

Read by `taskscope build` and `taskscope check`. The three generators are pure; the disk is touched only here.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.errors import TaskscopeError

__all__ = [
    "FOLDERS",
    "MARK",
    "ArtefactError",
    "Changes",
    "Finding",
    "collect",
    "drift",
    "present",
    "write",
]

MARK: Final = "taskscope build"
"""Every generated file names the command that made it; one that does not is never removed."""

_BOARD_MARK: Final = re.compile(r'"editable": false\b.*"tags": \[\s*"taskscope"', re.DOTALL)
"""JSON has no comments: a generated board is told by its tag, and by being closed to edits by hand."""

FOLDERS: Final = (
    "alerts/generated",
    "alerts/runbooks",
    "dashboards/generated",
    "exporters/generated",
)
"""The folders, relative to the project, in which every file is made by a render."""


class ArtefactError(TaskscopeError):
    """For whoever runs build or check: a generator is missing, or a folder cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One disagreement: the file or series it is about, what was found, and the remedy."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What `write` did, as paths relative to the project, each list sorted."""

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    same: int = 0

    @property
    def count(self) -> int:
        return len(self.created) + len(self.changed) + len(self.removed)


def collect(catalogue: Catalogue) -> dict[str, str]:
    """Every generated file of the service, text by path relative to the project. Raises ArtefactError."""
    try:
        from taskscope_alerts.render import render as alerts
        from taskscope_dashboards.render import render as dashboards
        from taskscope_exporters.render import render as exporters

        rendered = {
            "alerts": alerts(catalogue),
            "dashboards": dashboards(catalogue),
            "exporters": exporters(catalogue),
        }
    except ModuleNotFoundError as error:
        raise ArtefactError(
            f"{error.name} is not installed; run: pip install 'taskscope[all]'"
        ) from error
    return {
        f"{organ}/{path}": text
        for organ, files in sorted(rendered.items())
        for path, text in sorted(files.items())
    }


def present(into: Path) -> dict[str, str]:
    """Every file that lies in FOLDERS below `into`, text by relative path; what is no text reads as empty.

    Raises ArtefactError for an `into` that is a file, or a file that cannot be read.
    """
    if into.exists() and not into.is_dir():
        raise ArtefactError(f"{into} is not a folder; name the project's folder with --into")
    return {
        path.relative_to(into).as_posix(): _read(path)
        for folder in FOLDERS
        for path in _files(into / folder)
    }


def write(rendered: Mapping[str, str], into: Path) -> Changes:
    """`into` holds exactly the rendered files; orphans that an earlier build made are gone. Raises ArtefactError."""
    found = present(into)
    created = sorted(rendered.keys() - found.keys())
    changed = sorted(p for p, text in rendered.items() if p in found and found[p] != text)
    removed = sorted(p for p in found.keys() - rendered.keys() if _ours(found[p]))
    try:
        for path in (*created, *changed):
            _replace(into / PurePosixPath(path), rendered[path])
        for path in removed:
            (into / path).unlink(missing_ok=True)
    except OSError as error:
        raise ArtefactError(
            f"{error.filename or into}: {error.strerror}; make the folder writable, or choose another with --into"
        ) from error
    return Changes(
        created=tuple(created),
        changed=tuple(changed),
        removed=tuple(removed),
        same=len(rendered) - len(created) - len(changed),
    )


def drift(rendered: Mapping[str, str], found: Mapping[str, str]) -> list[Finding]:
    """Each file that differs from its render, is missing, or was made by no render."""
    findings = [
        Finding(where=path, what="is missing", remedy="run `taskscope build`")
        for path in rendered.keys() - found.keys()
    ]
    findings += [
        Finding(
            where=path,
            what=f"differs from its render at line {_first_difference(found[path], text)}",
            remedy="run `taskscope build`, and change the generator or the catalogue, not this file",
        )
        for path, text in rendered.items()
        if path in found and found[path] != text
    ]
    findings += [_orphan(path, found[path]) for path in found.keys() - rendered.keys()]
    return sorted(findings)


def _orphan(path: str, text: str) -> Finding:
    remedy = (
        "run `taskscope build`, which removes it"
        if _ours(text)
        else "move it to a folder of yours, or delete it"
    )
    return Finding(where=path, what="is an orphan: nothing renders it", remedy=remedy)


def _ours(text: str) -> bool:
    return MARK in text or _BOARD_MARK.search(text) is not None


def _first_difference(one: str, other: str) -> int:
    """The number of the first line, from 1, in which two different texts differ."""
    left, right = one.splitlines(), other.splitlines()
    for number, (a, b) in enumerate(zip(left, right, strict=False), start=1):
        if a != b:
            return number
    return min(len(left), len(right)) + 1


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.rglob("*"))
    except OSError as error:
        raise ArtefactError(f"{folder}: {error.strerror}; make it readable") from error
    for entry in entries:
        hidden = any(part.startswith(".") for part in entry.relative_to(folder).parts)
        if not hidden and (entry.is_symlink() or entry.is_file()):
            yield entry


def _read(path: Path) -> str:
    # A link is never followed: a render makes plain files, so a link differs from its render and is replaced.
    if path.is_symlink():
        return ""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}; make it readable") from error


def _replace(path: Path, text: str) -> None:
    """The file holds `text`, whole or not at all: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".build-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
