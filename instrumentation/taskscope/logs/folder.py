"""The spool's folder: made for this user alone, and its names brought to disk."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from taskscope.errors import SettingsError
from taskscope.logs.disk import Disk

__all__ = ["Names", "prepare"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def prepare(disk: Disk, folder: Path) -> None:
    """The folder exists, is no symbolic link, and nobody else may write there. Raises SettingsError."""
    try:
        _make(disk, folder)
        found = disk.lstat(str(folder))
    except OSError as error:
        raise SettingsError(
            f"spool {folder} cannot be made: {error.strerror}; set TASKSCOPE_SPOOL to a folder this user may write"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise SettingsError(
            f"spool {folder} is a symbolic link or a file; set TASKSCOPE_SPOOL to the folder itself"
        )
    if found.st_mode & 0o022:
        raise SettingsError(
            f"spool {folder} can be written by other users; set TASKSCOPE_SPOOL to a folder inside it, "
            "which is then made for this user alone"
        )


def _make(disk: Disk, folder: Path) -> None:
    missing: list[Path] = []
    for each in (folder, *folder.parents):
        try:
            disk.lstat(str(each))
        except FileNotFoundError:
            missing.append(each)
        else:
            break
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another worker made it just now
            disk.mkdir(str(each), 0o700 if each == folder else 0o777)


class Names:
    """The names of a folder's files on their way to disk, by a descriptor that is kept from the start: there may be
    none left later."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._fd = -1

    def open(self) -> None:
        """The descriptor is that of the folder which stands there now. Raises OSError."""
        if self._fd >= 0 and self._disk.fstat(self._fd).st_nlink:
            return
        gone, self._fd = self._fd, self._disk.open(self._folder, _FOLDER)
        if gone >= 0:
            self._disk.close(gone)

    def sync(self) -> None:
        """New names, and names given anew, outlive a loss of power. Raises OSError."""
        self.open()
        self._disk.fsync(self._fd)

    def close(self) -> None:
        """The descriptor is given back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(fd)
