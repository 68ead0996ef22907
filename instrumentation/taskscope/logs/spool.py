"""The writer's side of the spool: one line, one `write` to this process's own segment, nothing in between.

No queue, no thread and no network on the request's path. What `write` has answered is in the operating system's
hands: it outlives the death of the process, and after `sync_s` also the loss of power. An exclusive lock that the
writer holds on its open segment marks it as being written; it ends with the process, however that dies. A segment is
only ever appended to, and left for good after a failure: no offset, and so no id, is used twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taskscope.errors import SettingsError
from taskscope.logs.disk import MACHINE, Disk
from taskscope.logs.durable import Segment, begin, bring, completed, is_ours, nowhere, rescue
from taskscope.logs.folder import Names, prepare
from taskscope.logs.names import SEGMENT_NAME, segment_name
from taskscope.logs.room import ERRORS, USUAL, WARNINGS, Room, Written, reason
from taskscope.logs.tending import begin_again_in_children, start_tending

__all__ = ["ERRORS", "SEGMENT_NAME", "USUAL", "WARNINGS", "Spool", "Written"]

_CLOSE_S: Final = 5.0
# Segments that wait for a disk that does not answer; each holds a descriptor.
_MOST_RETIRED: Final = 16
_MORE: Final = 64 * 1024
_STORED: Final = Written.STORED


class Spool:
    """The lines of one process on their way to disk. Safe for threads, forks and signal handlers.

    folder: made with mode 0700 if it is not there. max_bytes: above it lines are dropped, the less urgent ones a
    little before (see `Room`). segment_bytes: size at which a segment is finished. sync_s: seconds between two
    `fdatasync`, by a thread that starts with the first line; None for never. failed: told each error of a sync, by
    that thread. Raises SettingsError if the folder cannot be used.
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
        failed: Callable[[OSError], None] | None = None,
        disk: Disk = MACHINE,
    ) -> None:
        self.folder = folder
        self.last_error: OSError | None = None
        self._path = str(folder)
        self._disk = disk
        self._put = disk.write
        self._segment_bytes = segment_bytes
        self._sync_s = sync_s
        self._now = now
        self._monotonic = monotonic
        self._failed = failed
        self._names = Names(disk, self._path)
        self._room = Room(disk, self._path, max_bytes=max_bytes)
        self._new_locks()
        self._begin_run()
        prepare(disk, folder)
        try:
            self._names.open()
            self._segment = self._begin()
        except OSError as error:
            self._names.close()
            raise SettingsError(
                f"spool {folder} cannot be written: {error.strerror}; free it, or set TASKSCOPE_SPOOL to a folder "
                "this user may write"
            ) from error
        begin_again_in_children(self)

    def _new_locks(self) -> None:
        # Locks that their own thread may take again: a signal handler or a finaliser may log while a line is written.
        self._lock = threading.RLock()
        self._one_sync = threading.RLock()
        self._retired: list[Segment] = []

    def _begin_run(self) -> None:
        self.pid = os.getpid()
        self._run = self._new_run()
        self._sequence = 0
        self._ms = 0
        self._segment = nowhere()
        self._until = -1
        self._before = 0
        self._room.begin_again()
        self._completing = False
        self._closed = False
        self._wake = threading.Event()
        self._syncer: threading.Thread | None = None

    def _new_run(self) -> str:
        return uuid.uuid4().hex[:16]

    @property
    def segment(self) -> str:
        """The file name of the segment that is written now; empty before the first line of a forked process."""
        return self._segment.name

    @property
    def closed(self) -> bool:
        """Whether lines are refused because `close` was called."""
        return self._closed

    def reopen(self) -> None:
        """Lines are taken again after `close`, as a new run; nothing happens if it is open."""
        if self._closed:
            self._begin_run()

    def write(self, line: bytes, *, urgent: int = USUAL) -> Written:
        """Appends one line, which ends with its line break. Never raises OSError: says what became of it.

        urgent: USUAL, WARNINGS or ERRORS: the more, the later it is dropped for want of room.
        """
        with self._lock:
            segment = self._segment
            size = len(line)
            if segment.end + size > self._until:
                return self._write_carefully(line, urgent)
            try:
                written = self._put(segment.fd, line)
                if written != size:
                    self._complete(segment, line, written)
            except OSError as error:
                return self._write_elsewhere(line, urgent, segment, error)
            segment.end += size
        return _STORED

    def sync(self) -> bool:
        """Brings to disk what was stored before this call, but for what an earlier call could not bring there.

        Returns whether it outlives a loss of power now. May wait as long as the disk does.
        """
        with self._one_sync:
            with self._lock:
                waiting = [(each, each.end) for each in (*self._retired, self._segment)]
            kept = [self._keep(segment, end) for segment, end in waiting if segment.fd >= 0]
        return all(kept)

    def close(self) -> None:
        """Finishes the segment; all lines are on disk, or after five seconds on their way. Later ones are refused."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._leave(nowhere())
        self._wake.set()
        if self._syncer is None:
            self.sync()
        elif self._syncer is not threading.current_thread():
            self._syncer.join(timeout=_CLOSE_S)
            if self._syncer.is_alive():
                return  # it holds the descriptors, and ends when the disk answers
        self._names.close()

    def tend(self) -> None:
        """What the thread does at each turn: lines come to disk, and the room is known."""
        self.sync()
        with self._lock:
            grew = self._room.grew(self._before + self._segment.end)
        if grew and not self._closed and self._room.is_old(self._monotonic()):
            self._look()

    # From here to `_complete` the caller holds the lock: what is seldom, beside the usual line.

    def _write_carefully(self, line: bytes, urgent: int) -> Written:
        """Looks at all that the usual write leaves out, makes room for the line, and writes it."""
        if self._closed or self._completing:
            return Written.WRITE_ERROR
        if self._sync_s is not None and self._syncer is None:
            self._syncer = self._start(self._sync_s)
        # The thread looks every second, unless the disk holds it up.
        if self._room.is_old(self._monotonic(), spared=0.0 if self._syncer is None else 1.0):
            self._look()
        size = len(line)
        refusal = self._room.refusal(size, urgent, self._before + self._segment.end)
        if refusal is not None:
            if refusal is Written.DISK_FULL:
                self.last_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return refusal
        try:
            segment = self._open_segment(size)
        except OSError as error:
            self.last_error = error
            return reason(error)
        usual = segment.end + self._room.step(self._before + segment.end)
        self._until = max(min(usual, segment.limit), segment.end + size)
        return self.write(line, urgent=urgent)

    def _start(self, every_s: float) -> threading.Thread | None:
        return start_tending(self, every_s=every_s, wake=self._wake)

    def _open_segment(self, size: int) -> Segment:
        """The segment that has room for a line of that size. Raises OSError if there is none."""
        segment = self._segment
        if segment.fd < 0:
            self._leave(self._begin())
        elif segment.end and segment.end + size > segment.limit:
            try:
                self._leave(self._begin())
            except OSError:
                # No descriptor is left, or no name: the lines go on into the segment that is open.
                segment.limit = segment.end + size + _MORE
        return self._segment

    def _begin(self) -> Segment:
        if len(self._retired) >= _MOST_RETIRED:
            raise OSError(errno.EAGAIN, "the disk has not answered for long")
        sequence = self._sequence
        self._sequence += 1
        # A clock that was set back must not put a later segment before an earlier one.
        self._ms = max(self._ms, self._now() // 1_000_000)
        name = segment_name(ms=self._ms, run=self._run, sequence=sequence)
        return begin(self._disk, self._path, name, limit=self._segment_bytes)

    def _leave(self, following: Segment, *, synced_here: bool = False) -> None:
        """No more lines go to the segment; the thread syncs and closes it, so that no request waits for the disk."""
        segment, self._segment = self._segment, following
        self._until = -1
        self._before += segment.end
        segment.retired = True
        if segment.fd >= 0:
            self._retired.append(segment)
            if self._syncer is None and not synced_here:
                self._let_go(segment)

    def _let_go(self, segment: Segment) -> None:
        self._retired.remove(segment)
        fd, segment.fd = segment.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(fd)

    def _write_elsewhere(
        self, line: bytes, urgent: int, segment: Segment, error: OSError
    ) -> Written:
        """Nothing of the line is in the segment: another takes it, unless the disk is full."""
        self.last_error = error
        untouched = not segment.end
        if error.errno == errno.EBADF:
            segment.fd = -1  # somebody has closed it: it is not ours to close
        elif untouched or reason(error) is Written.DISK_FULL:
            return reason(error)
        if self._segment is segment:
            self._leave(nowhere())
        return Written.WRITE_ERROR if untouched else self._write_carefully(line, urgent)

    def _complete(self, segment: Segment, line: bytes, written: int) -> None:
        """The whole line is in the segment. Raises OSError: then it is not, and the segment is left, for where half
        a line stood no other may follow."""
        self._completing = True  # a line of a signal handler must not come between
        try:
            completed(self._disk, segment, line, written)
        except OSError:
            if self._segment is segment:
                self._leave(nowhere())
            raise
        finally:
            self._completing = False

    def _look(self) -> None:
        """All processes' files are measured, and whether the segment still is the one that was begun."""
        with self._lock:
            written = self._before + self._segment.end
        self._room.look(self._monotonic(), written)
        with self._lock:
            segment = self._segment
            self._until = -1
            if segment.fd >= 0 and not is_ours(self._disk, segment):
                self._leave(nowhere())

    def _keep(self, segment: Segment, end: int) -> bool:
        """Whether the segment's bytes up to `end` are on disk now. One that is retired is let go of."""
        try:
            bring(self._disk, self._names, segment, end)
            kept = True
        except OSError as error:
            self._tell(error)
            kept = self._rescued(segment)
            end = segment.end
        with self._lock:
            if segment in self._retired and end == segment.end:
                self._let_go(segment)
        return kept

    def _rescued(self, segment: Segment) -> bool:
        with self._lock:
            if self._segment is segment:
                self._leave(nowhere(), synced_here=True)
        try:
            rescue(self._disk, self._path, self._names, segment)
        except OSError as error:
            self._tell(error)
            return False
        return True

    def _tell(self, error: OSError) -> None:
        self.last_error = error
        if self._failed is not None:
            with contextlib.suppress(Exception):  # whoever is told must not end the thread
                self._failed(error)

    def before_fork(self) -> None:
        """No other thread is within a write; so a child never inherits a segment that is half opened."""
        self._lock.acquire()

    def in_parent(self) -> None:
        """Lines go on after a fork."""
        self._lock.release()

    def in_child(self) -> None:
        """The parent's segment is the parent's alone; the first line opens an own one."""
        closed = self._closed
        inherited = [each.fd for each in (self._segment, *self._retired)]
        self._new_locks()
        self._begin_run()
        self._closed = closed
        for fd in inherited:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    self._disk.close(fd)
