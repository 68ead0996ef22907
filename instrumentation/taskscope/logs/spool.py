"""The writer's side of the spool: one line, one `write` to this process's own segment, nothing in between.

No queue, no thread and no network on the request's path. What `write` has answered is in the operating system's
hands: it outlives the death of the process, and after `sync_s` also the loss of power. An exclusive lock that the
writer holds on its open segment marks it as being written; it ends with the process, however that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from taskscope.errors import SettingsError

__all__ = ["SEGMENT_NAME", "Spool", "Written"]

SEGMENT_NAME: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}-[0-9a-f]{6}\.seg\Z")
"""Milliseconds since 1970, the run's random id, the sequence within the run: sorted by name is oldest first."""

_COUNTED: Final = (".seg", ".ndjson")
"""Segments, and the shipper's dead letters: what cannot be stored for good must not fill the disk either."""

_RESERVE: Final = 1024 * 1024
_MEASURE_S: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Written(Enum):
    """What became of a line; the values of the others are reasons of `taskscope.logs.dropped`."""

    STORED = "stored"
    SPOOL_FULL = "spool_full"
    WRITE_ERROR = "write_error"


class Spool:
    """The lines of one process on their way to disk. Safe for threads, forks and signal handlers.

    folder: made with mode 0700 if it is not there. max_bytes: above it lines are dropped, the less urgent ones
    already a little (at most 1 MiB) before. segment_bytes: size at which a segment is finished.
    sync_s: seconds between two `fdatasync`, by a thread that starts with the first line; None for never.
    Raises SettingsError if the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        sync_s: float | None = 0.1,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._limit = max_bytes - min(_RESERVE, max_bytes // 16)
        self._segment_bytes = segment_bytes
        self._sync_s = sync_s
        self._now = now
        self._monotonic = monotonic
        self.last_error: OSError | None = None
        self._begin_run()
        _prepare(folder)
        try:
            self._open()
        except OSError as error:
            raise SettingsError(
                f"spool {folder} cannot be written: {error.strerror}; free it, or set TASKSCOPE_SPOOL to a folder "
                "this user may write"
            ) from error
        _begin_again_in_children(self)

    def _begin_run(self) -> None:
        # A lock that its own thread may take again: a signal handler or a finaliser may log while a line is written.
        self._lock = threading.RLock()
        self.pid = os.getpid()
        self._run = uuid.uuid4().hex[:16]
        self._sequence = 0
        self._name = ""
        self._fd = -1
        self._size = 0
        self._used = 0
        self._measured = -_MEASURE_S
        self._dirty = False
        self._closed = False
        self._retired: list[int] = []
        self._syncing = -1
        self._wake = threading.Event()
        self._syncer: threading.Thread | None = None

    @property
    def segment(self) -> str:
        """The file name of the segment that is written now; empty before the first line of a forked process."""
        return f"{self._name}.seg" if self._fd >= 0 else ""

    @property
    def closed(self) -> bool:
        """Whether lines are refused because `close` was called."""
        return self._closed

    def reopen(self) -> None:
        """Lines are taken again after `close`, as a new run; nothing happens if it is open."""
        if self._closed:
            self._begin_run()

    def write(self, line: bytes, *, urgent: bool = False) -> Written:
        """Appends one line, which ends with its line break. Never raises OSError: says what became of it.

        urgent: whether the line may use the reserve that is kept for warnings and errors.
        """
        size = len(line)
        with self._lock:
            if self._closed:
                return Written.WRITE_ERROR
            now = self._monotonic()
            if now - self._measured >= _MEASURE_S:
                self._measure(now)
            if self._used + size > (self._max_bytes if urgent else self._limit):
                return Written.SPOOL_FULL
            try:
                if self._fd < 0:
                    self._open()
                written = os.write(self._fd, line)
                if written != size:
                    self._complete(line, written)
            except OSError as error:
                self.last_error = error
                return Written.WRITE_ERROR
            self._size += size
            self._used += size
            self._dirty = True
            if self._size >= self._segment_bytes:
                self._retire()
            if self._syncer is None and self._sync_s is not None:
                self._start_syncer(self._sync_s)
        return Written.STORED

    def close(self) -> None:
        """Finishes the segment; all lines are on disk. Later lines are refused."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._retire()
        self._wake.set()
        if self._syncer is not None and self._syncer is not threading.current_thread():
            self._syncer.join(timeout=5)
        self._sync_retired()

    def _complete(self, line: bytes, written: int) -> None:
        """Writes what is left of a line of which `written` bytes are on disk. Raises OSError: then none is."""
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            # Half a line is on disk: take it back, or leave the segment to the reader, who drops a torn end.
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self._retire()
            raise

    def _open(self) -> None:
        """Opens the next segment: it is locked before it gets the name by which readers find it."""
        name = f"{self._now() // 1_000_000:012x}-{self._run}-{self._sequence:06x}"
        draft = self.folder / f"{name}.new"
        fd = os.open(draft, _FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(self.folder / f"{name}.seg")
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        self._sequence += 1
        self._name = name
        self._fd = fd
        self._size = 0

    def _retire(self) -> None:
        """Lets go of the segment; the thread syncs and closes it, so that no request waits for the disk."""
        if self._fd < 0:
            return
        self._retired.append(self._fd)
        self._fd = -1
        if self._syncer is None:
            self._sync_retired()

    def _measure(self, now: float) -> None:
        """All processes' files are measured, once a second."""
        self._measured = now
        self._used = _folder_bytes(self.folder)

    def _start_syncer(self, every_s: float) -> None:
        self._syncer = threading.Thread(
            target=_sync_until_closed,
            args=(weakref.ref(self), self._wake, every_s),
            name="taskscope-spool-sync",
            daemon=True,
        )
        try:
            self._syncer.start()
        except RuntimeError:
            # No thread can start while the interpreter shuts down; the lines are written all the same.
            self._syncer = None
            self._sync_s = None

    def _sync(self) -> None:
        """Brings what was written to disk. After a failure the segment is left and a new one begun:
        the kernel may have dropped the pages, and a second try would report a success that is none."""
        try:
            with self._lock:
                if self._dirty and self._fd >= 0:
                    self._syncing = os.dup(self._fd)
                    self._dirty = False
            if self._syncing >= 0:
                os.fdatasync(self._syncing)
        except OSError as error:
            with self._lock:
                self.last_error = error
                self._retire()
        finally:
            with self._lock:
                if self._syncing >= 0:
                    os.close(self._syncing)
                    self._syncing = -1
        self._sync_retired()

    def _sync_retired(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
        for fd in retired:
            try:
                if self._sync_s is not None:
                    os.fdatasync(fd)
            except OSError as error:
                self.last_error = error
            finally:
                os.close(fd)

    def _after_fork(self) -> None:
        """In the child: the parent's segment is the parent's alone; the first line opens an own one."""
        if self._closed:
            return
        inherited = [self._fd, self._syncing, *self._retired]
        self._begin_run()
        for fd in inherited:
            if fd >= 0:
                os.close(fd)


def _sync_until_closed(
    reference: weakref.ref[Spool], wake: threading.Event, every_s: float
) -> None:
    while not wake.wait(every_s):
        spool = reference()
        if spool is None:
            return
        spool._sync()
        del spool


def _begin_again_in_children(spool: Spool) -> None:
    # Hooks cannot be taken back; a weak reference lets a closed spool go. The lock is held across the fork, so
    # that the child never inherits a segment that is half opened.
    reference = weakref.ref(spool)
    forking: list[Spool] = []

    def before() -> None:
        found = reference()
        if found is not None:
            found._lock.acquire()
            forking.append(found)

    def in_parent() -> None:
        if forking:
            forking.pop()._lock.release()

    def in_child() -> None:
        if forking:
            forking.pop()._after_fork()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _prepare(folder: Path) -> None:
    """The folder exists, is no symbolic link, and nobody else may write there. Raises SettingsError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SettingsError(
            f"spool {folder} cannot be made: {error.strerror}; set TASKSCOPE_SPOOL to a folder this user may write"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise SettingsError(
            f"spool {folder} is a symbolic link; set TASKSCOPE_SPOOL to the folder itself"
        )
    if found.st_mode & 0o022:
        raise SettingsError(
            f"spool {folder} can be written by other users; set TASKSCOPE_SPOOL to a folder inside it, "
            "which is then made for this user alone"
        )


def _folder_bytes(folder: Path) -> int:
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.name.endswith(_COUNTED):
                        total += entry.stat(follow_symlinks=False).st_size
                except OSError:
                    continue  # the shipper has just removed it
    except OSError:
        return 0
    return total
