"""Where a server's folder can be, and the files in it: made, written and handed to the server's account.

Root's own folders (`/root`, pytest's temporary ones) are closed to the accounts that servers drop to.
For those, and only as root, the server's folder moves under `ROOT_STATE`, by a name that stays the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from taskscope.errors import EngineError

if TYPE_CHECKING:
    from taskscope.testing.engines.spec import Owner, Spec

ROOT_STATE = Path("/var/lib/taskscope")
_ORIGIN = ".origin"
_SIGN = ".stand-in"
"""In a folder that has a stand-in: without it the folder is new, whatever stood for its name before."""


def enterable(folder: Path) -> bool:
    """Whether any account may pass through the parents of `folder` that exist."""
    parents = (parent for parent in folder.absolute().parents if parent.exists())
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)


def place(folder: Path, owner: Owner | None) -> Path:
    """`folder` made absolute, or its stand-in under `ROOT_STATE` where `owner` could not reach it."""
    folder = folder.resolve()
    if owner is None or enterable(folder):
        return folder
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return ROOT_STATE / f"{folder.name}-{digest}"


def origin_of(folder: Path, placed: Path) -> dict[Path, str | bytes]:
    """The file that lets `lay_out` clear a stand-in away once the folder it stands for is gone."""
    folder = folder.resolve()
    return {} if placed == folder else {placed / _ORIGIN: str(folder)}


def lay_out(spec: Spec) -> None:
    """Folders exist, files are written (0600), and both belong to the account that runs `spec`.

    Raises EngineError when the disk or the permissions do not allow it.
    """
    try:
        if spec.cwd.parent == ROOT_STATE:
            _keep_origin(spec)
            _clear_orphans()
        for folder in (spec.cwd, *spec.folders):
            _folder(folder, spec)
        for path, content in spec.files.items():
            _folder(path.parent, spec)
            _file(path, content.encode() if isinstance(content, str) else content, spec.owner)
    except OSError as error:
        place_ = error.filename or spec.cwd
        raise EngineError(
            f"{spec.name}: {place_}: {error.strerror}; free the disk or give a folder you may write"
        ) from error


def open_log(spec: Spec) -> int:
    """A descriptor that adds to the server's log, never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(spec.log, flags, 0o600)


def _folder(folder: Path, spec: Spec) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o700)
    if spec.owner is None:
        return
    inside = folder if folder.is_relative_to(spec.cwd) else spec.cwd
    while inside.is_relative_to(spec.cwd):
        os.chown(inside, spec.owner.uid, spec.owner.gid, follow_symlinks=False)
        inside = inside.parent


def _file(path: Path, content: bytes, owner: Owner | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        if owner is not None:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        file.write(content)


def _keep_origin(spec: Spec) -> None:
    ROOT_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    ROOT_STATE.chmod(0o711)
    origin = spec.files.get(spec.cwd / _ORIGIN)
    if isinstance(origin, str):
        sign = Path(origin, _SIGN)
        if not sign.exists() and spec.cwd.is_dir():
            shutil.rmtree(spec.cwd)  # it stood for a folder of that name that is gone
        sign.parent.mkdir(parents=True, exist_ok=True)
        sign.write_text(f"{spec.cwd}\n")


def _clear_orphans() -> None:
    for marker in ROOT_STATE.glob(f"*/{_ORIGIN}"):
        with suppress(OSError):
            if not Path(marker.read_text()).is_dir():
                shutil.rmtree(marker.parent)
