"""The stack's secrets: made at the first start, kept in files only their owner reads."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from taskscope.errors import EngineError

__all__ = ["Credentials", "private_folder"]

_BYTES: Final = 32
_PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """One random word of 256 bits for each purpose; printing the value shows none of them."""

    jwt: str
    elasticsearch_admin: str
    elasticsearch_shipper: str
    elasticsearch_reader: str

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """The secrets in `folder`, each made now if it was not there. Raises EngineError."""
        private_folder(folder)
        return cls(**{field.name: _word(folder / field.name) for field in fields(cls)})


def private_folder(folder: Path) -> Path:
    """`folder` exists, is a real folder, and nobody but its owner may look in. Raises EngineError."""
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        if folder.is_symlink():
            raise EngineError(f"{folder} is a link; remove it or name another folder with --folder")
        folder.chmod(_PRIVATE)
    except OSError as error:
        raise EngineError(
            f"{folder} cannot be used: {error.strerror}; name another folder with --folder"
        ) from error
    return folder


def _word(path: Path) -> str:
    try:
        word = _read(path)
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read: {error.strerror}; remove it, a new one is made at the next start"
        ) from error
    if not word:
        raise EngineError(f"{path} is empty; remove it, a new one is made at the next start")
    return word


def _read(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, encoding="ascii", errors="replace") as file:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            os.fchmod(fd, 0o600)
        return file.read().strip()


def _make(path: Path) -> str:
    word = secrets.token_urlsafe(_BYTES)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(word + "\n")
    except OSError as error:
        path.unlink(missing_ok=True)  # half a secret would be taken for one at the next start
        raise EngineError(
            f"{path} cannot be written: {error.strerror}; free the disk, or name another folder with --folder"
        ) from error
    return word
