"""The store of one worker: cells in a memory-mapped file of its own, which any other worker can read.

The process holds the file's lock for as long as it lives, on a descriptor of its own that the kernel drops at
SIGKILL too. Room is written before it is handed out: a full disk is an allocation that fails, where a sparse page
would end the process at the first write. On a disk the kernel writes the pages back now and then; a folder in
memory (tmpfs) spares that.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import time
import weakref
from array import array
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Final, cast

from taskscope.catalogue import Across, Kind, Metric
from taskscope.errors import MultiprocessError
from taskscope.metrics.store import Exemplar, Reading, Series, width
from taskscope.multiprocess import files
from taskscope.multiprocess.folder import WorkerFolder
from taskscope.multiprocess.layout import (
    CELLS,
    CELLS_ROOM,
    COUNTS_AT,
    EXEMPLAR_BYTES,
    EXEMPLARS,
    HEADER_BYTES,
    KEY_BYTES,
    WORKER,
    Definition,
    Header,
    exemplar_record,
    key_record,
    values_bytes,
)

__all__ = ["WorkerStore"]

_STEP: Final = 65_536
_ATTEMPTS: Final = 5
OnError = Callable[[str, BaseException | None], None]


class _WorkerFile:
    """One mapped and locked file. Raises OSError where the disk does not give the room."""

    def __init__(self, folder: Path, service: str, *, cells: int, now: Callable[[], int]) -> None:
        self.header = Header(
            role=WORKER,
            id=secrets.token_bytes(16),
            service=service,
            created=now(),
            pid=os.getpid(),
            keys=KEY_BYTES,
            cells=cells,
            exemplars=EXEMPLARS,
        )
        name = files.worker_name(service, self.header.id)
        draft = files.draft_name(service, self.header.id)
        opened = files.open_folder(folder)
        self._open: list[int] = []
        try:
            self._file = files.new_file(opened, draft)
            self._open.append(self._file)
            # A description of its own: the map keeps a copy of the other, and a copy shares its lock.
            lock = os.open(draft, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=opened)
            self._open.append(lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, self.header.size)
            os.pwrite(self._file, self.header.pack(), 0)
            self._map = mmap.mmap(self._file, self.header.size)
            os.rename(draft, name, src_dir_fd=opened, dst_dir_fd=opened)
        except BaseException:
            for file in self._open:
                os.close(file)
            with suppress(OSError):
                os.unlink(draft, dir_fd=opened)
            raise
        finally:
            os.close(opened)
        whole = memoryview(self._map)
        header = self.header
        self.cells = whole[header.cells_at : header.exemplars_at].cast("d")
        self._counts = whole[COUNTS_AT : COUNTS_AT + 16].cast("Q")
        self._views = (self.cells, self._counts, whole)
        self._limits = {
            HEADER_BYTES: header.cells_at,
            header.cells_at: header.exemplars_at,
            header.exemplars_at: header.folded_at,
        }
        self._reserved = dict.fromkeys(self._limits, 0)

    def reserve(self, region: int, length: int) -> None:
        """The first `length` bytes of the region are on the disk. Raises OSError if it is full."""
        has = self._reserved[region]
        while has < length:
            step = min(_STEP, self._limits[region] - region - has)
            if os.pwrite(self._file, bytes(step), region + has) < step:
                raise OSError("the disk took only a part")
            has = self._reserved[region] = has + step

    def add_keys(self, blob: bytes, at: int) -> None:
        """The keys at `at` are there for readers. Raises OSError if the disk is full."""
        self.reserve(HEADER_BYTES, at + len(blob))
        start = HEADER_BYTES + at
        self._map[start : start + len(blob)] = blob
        self._counts[0] = at + len(blob)

    def set_exemplar(self, slot: int, record: bytes) -> None:
        """The slot's record is there for readers. Raises OSError if the disk is full."""
        self.reserve(self.header.exemplars_at, (slot + 1) * EXEMPLAR_BYTES)
        start = self.header.exemplars_at + slot * EXEMPLAR_BYTES
        self._map[start : start + EXEMPLAR_BYTES] = record
        if slot >= self._counts[1]:
            self._counts[1] = slot + 1

    def keys(self, length: int) -> bytes:
        """The first bytes of the keys."""
        return self._map[HEADER_BYTES : HEADER_BYTES + length]

    def close(self) -> None:
        """The lock is dropped and the map is gone; the file is there for who folds it."""
        held, self._open = self._open, []
        for file in held:
            with suppress(OSError):
                os.close(file)
        with suppress(BufferError, ValueError):
            for view in self._views:
                view.release()
            self._map.close()


class WorkerStore:
    """A `Store` in a file of its own in `folder`, which all workers of one service on one machine share.

    The folder is made if need be and must be the user's alone. What earlier workers left there is folded and goes
    on counting. A forked child goes on in a file of its own, from zero; a gauge that is the least or most of all
    workers begins at its parent's value. A child that gets no file counts in memory, unseen, and is reported.
    failed: told of what was swallowed, and may be set later. cells: room for so many doubles.
    Raises MultiprocessError if the folder is not ours, not there, or full.
    """

    def __init__(
        self,
        folder: Path,
        *,
        service: str,
        failed: OnError | None = None,
        cells: int = CELLS,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        if files.SERVICE.match(service) is None or not 0 < cells <= CELLS_ROOM:
            raise MultiprocessError(
                f"{folder}: service {service!r} or {cells} cells cannot be stored; "
                f"take a lower-case slug of at most 32 characters and at most {CELLS_ROOM} cells"
            )
        self.lock = RLock()
        self._folder = folder.absolute()
        self._service = service
        self.failed: OnError = failed or _ignore
        self._now = now
        self._room = cells
        self._series: list[tuple[Series, int]] = []
        self._numbers: dict[tuple[str, tuple[float, ...]], int] = {}
        self._slots: dict[int, int] = {}
        self._exemplars: dict[int, Exemplar] = {}
        self._ends = (0, 0)
        os.close(files.open_folder(self._folder, create=True))
        try:
            self._file: _WorkerFile | None = self._new_file()
        except OSError as error:
            raise MultiprocessError(
                f"{folder}: no file can be made in the workers' folder ({error.strerror}); free some room on its disk"
            ) from error
        self.cells = _cells(self._file)
        self._tidy()
        os.register_at_fork(after_in_child=_Forked(self))

    @property
    def file_name(self) -> str | None:
        """The name of this process's file in the folder; None where it counts in memory."""
        file = self._file
        return None if file is None else files.worker_name(self._service, file.header.id)

    def allocate(self, series: Series) -> int | None:
        """The index of the series' first cell, zeroed; None where no room is left, in the file or on the disk."""
        base, at = self._ends
        end = base + width(series)
        if end > self._room:
            return None
        file = self._file
        blob = self._records(series, base)
        if file is not None:
            if at + len(blob) > file.header.keys:
                return None
            try:
                file.reserve(file.header.cells_at, 8 * end)
                file.add_keys(blob, at)
            except OSError:
                return None
        # In this order: a fork of another thread may come between any two lines.
        self._series.append((series, base))
        self._ends = (end, at + len(blob))
        self._numbers.setdefault((series.metric.name, series.bounds), len(self._numbers))
        return base

    def exemplify(self, cell: int, exemplar: Exemplar) -> None:
        """The cell's exemplar is this one from now on; beyond EXEMPLARS cells it is dropped."""
        slot = self._slots.get(cell, len(self._slots))
        if slot >= EXEMPLARS:
            return
        record = exemplar_record(cell, exemplar)
        if record is None:
            return
        if self._file is not None:
            try:
                self._file.set_exemplar(slot, record)
            except OSError:
                return
        self._slots[cell] = slot
        self._exemplars[cell] = exemplar

    def readings(self) -> Iterator[Reading]:
        """Every series of this process alone, in the order of allocation."""
        with self.lock:
            cells = array("d", self.cells[: self._ends[0]])
            listed = tuple(self._series)
            exemplars = dict(self._exemplars)
        for series, base in listed:
            size = width(series)
            shown = {
                offset: exemplars[base + offset]
                for offset in range(size)
                if exemplars and base + offset in exemplars
            }
            yield Reading(series, cells[base : base + size], shown)

    def close(self) -> None:
        """This process is no worker any more; what it counted stays, and what it counts from now on is its own."""
        with self.lock:
            file, self._file = self._file, None
            if file is None:
                return
            kept = array("d", bytes(8 * self._room))
            kept[: self._ends[0]] = array("d", self.cells[: self._ends[0]])
            self.cells = kept
            file.close()

    def _records(self, series: Series, base: int) -> bytes:
        known = self._numbers.get((series.metric.name, series.bounds))
        values = values_bytes(series.values)
        if known is not None:
            return key_record(known, values, base)
        number = len(self._numbers)
        definition = key_record(number, _definition(series.metric, series.bounds))
        return definition + key_record(number, values, base)

    def _new_file(self) -> _WorkerFile:
        # Another process may take the file for a draft that was left, in the instant before it is locked.
        for _ in range(_ATTEMPTS - 1):
            with suppress(BlockingIOError, FileNotFoundError):
                return self._finalized()
        return self._finalized()

    def _finalized(self) -> _WorkerFile:
        file = _WorkerFile(self._folder, self._service, cells=self._room, now=self._now)
        weakref.finalize(self, file.close).atexit = False
        return file

    def _tidy(self) -> None:
        try:
            WorkerFolder(self._folder, service=self._service).fold()
        except Exception as error:  # noqa: BLE001 - what others left there must not keep a service from starting
            self.failed("multiprocess", error)

    def after_fork(self) -> None:
        """In a forked child: a lock of its own, a file of its own, and no hold on its parent's. Never raises."""
        self.lock = RLock()
        inherited, self._file = self._file, None
        used, keys = self._ends
        self._series = [(series, base) for series, base in self._series if base < used]
        cells = array("d", bytes(8 * self._room))
        for series, base in self._series:
            if series.metric.across is not Across.SUM:
                cells[base] = self.cells[base]
        self.cells = cells
        self._slots, self._exemplars = {}, {}
        if inherited is None:
            return
        try:
            file = self._new_file()
            file.reserve(file.header.cells_at, 8 * used)
            file.cells[:used] = memoryview(cells)[:used]
            file.add_keys(inherited.keys(keys), 0)
            self.cells = _cells(file)
            self._file = file
        except Exception as error:  # noqa: BLE001 - a child without a file works, and is counted
            self.failed("multiprocess", error)
        finally:
            inherited.close()


class _Forked:
    """What a fork calls in the child, which keeps no store alive."""

    def __init__(self, store: WorkerStore) -> None:
        self._store = weakref.ref(store)

    def __call__(self) -> None:
        store = self._store()
        if store is not None:
            store.after_fork()


def _cells(file: _WorkerFile) -> MutableSequence[float]:
    # A memoryview of doubles does all that is done to cells: look up, assign, slice.
    return cast(MutableSequence[float], file.cells)


def _definition(metric: Metric, bounds: tuple[float, ...]) -> Definition:
    return Definition(
        name=metric.name,
        kind=metric.kind,
        unit=metric.unit,
        help=metric.help,
        labels=tuple(label.name for label in metric.labels),
        bounds=bounds if metric.kind is Kind.HISTOGRAM else (),
        across=metric.across,
    )


def _ignore(component: str, error: BaseException | None) -> None:
    del component, error
