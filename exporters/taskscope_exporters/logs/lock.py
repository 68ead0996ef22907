"""The lock of a spool folder: who holds it ships, everybody else waits to take over."""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taskscope.errors import SettingsError

__all__ = ["SHIPPER_THREAD", "FolderLock"]

SHIPPER_THREAD: Final = "taskscope-ship"
"""How the names of threads begin that ship."""

_NAME: Final = "shipper.lock"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK_S: Final = 0.5


class FolderLock:
    """One process's hold, or wish to hold, on a spool folder; the kernel ends it with the process, however it dies.

    A forked child has no part in it, or it would keep the folder when its parent is gone. Raises SettingsError if the
    folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(folder / _NAME, _FLAGS, 0o600)
        except OSError as error:
            raise SettingsError(
                f"spool {folder} cannot be used: {error.strerror}; set TASKSCOPE_SPOOL to the folder that the service "
                "writes to, and run as its user"
            ) from error
        _let_go_in_children(self)

    def acquire(self, stop: threading.Event, say: Callable[[str], None]) -> bool:
        """Whether the folder is ours; waits for another shipper's end, which is told once, or for `stop`."""
        told = False
        while not stop.is_set():
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say(f"another shipper works in {self.folder}; this one waits to take over")
                    told = True
                stop.wait(_LOOK_S)
            else:
                self.held = True
                return True
        return False

    def close(self) -> None:
        """The folder is free for others; the second call does nothing."""
        self.held = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _let_go_in_children(lock: FolderLock) -> None:
    # A hook cannot be taken back; a weak reference lets a closed lock go.
    reference = weakref.ref(lock)

    def in_child() -> None:
        found = reference()
        if found is not None:
            found.close()

    os.register_at_fork(after_in_child=in_child)
