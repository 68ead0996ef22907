"""What stands in the workers' folder at one moment: the fold, who lives, who died, and what is left out.

No lock is needed to read. A fold is renamed into place before the files in it are removed, so an answer is whole
if the fold was the same before and after.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from zlib import crc32

from taskscope.errors import MultiprocessError
from taskscope.multiprocess import files
from taskscope.multiprocess.layout import (
    COUNTS_AT,
    EXEMPLAR_BYTES,
    FOLD,
    HEADER_BYTES,
    WORKER,
    BadFileError,
    Definition,
    Entry,
    Header,
    ids,
    parse_header,
    parse_keys,
)
from taskscope.multiprocess.merging import Source

__all__ = ["BATCH", "Fault", "Fold", "FolderReader", "Moment"]

BATCH: Final = 8
"""How many dead workers are folded at a time."""

_ATTEMPTS: Final = 5
_MAX_DEFINITIONS: Final = 4_096


class Fault(NamedTuple):
    """Why a file is left out, and what tells this state of it from the next."""

    reason: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The fold as it was read. folded: ids of workers that are in it, whose files may still be there."""

    id: bytes
    source: Source
    folded: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The folder at one moment. leftover: names of files that the fold holds already. drafts: unfinished files."""

    fold: Fold | None
    workers: tuple[Source, ...]
    leftover: tuple[str, ...]
    drafts: tuple[str, ...]
    faults: dict[str, Fault]

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.workers if self.fold is None else (*self.workers, self.fold.source)

    @property
    def dead(self) -> tuple[Source, ...]:
        return tuple(source for source in self.workers if not source.live)


class _Keys(NamedTuple):
    length: int
    entries: tuple[Entry, ...]
    sound: bool
    cells: int


@dataclass(slots=True)
class FolderReader:
    """Reads one service's files, and keeps what it parsed of those that are still there."""

    service: str
    _parsed: dict[bytes, _Keys] = field(default_factory=dict)
    _definitions: dict[bytes, Definition] = field(default_factory=dict)
    _fold: Fold | None = None

    def moment(self, folder: int, *, exemplars: bool = True) -> Moment:
        """The folder as it is. Raises MultiprocessError if it never stands still."""
        for _ in range(_ATTEMPTS):
            before = self._fold_mark(folder)
            moment = self._read(folder, exemplars, only_dead=False)
            if self._fold_mark(folder) == before:
                kept = {source.id for source in moment.workers}
                self._parsed = {id_: keys for id_, keys in self._parsed.items() if id_ in kept}
                self._fold = moment.fold
                if len(self._definitions) > _MAX_DEFINITIONS:
                    self._definitions.clear()
                return moment
        raise MultiprocessError(
            f"the workers' folder of {self.service} was folded anew {_ATTEMPTS} times while it was read; "
            "look for processes that start and end all the time"
        )

    def dead(self, folder: int) -> Moment:
        """The fold and at most BATCH of the dead, so that many of them need no more memory than a few.

        For whoever holds the folder's lock, so that nobody folds meanwhile.
        """
        moment = self._read(folder, True, only_dead=True)
        self._fold = moment.fold
        for source in moment.workers:
            del self._parsed[source.id]
        return moment

    def needs_care(self, folder: int) -> bool:
        """Whether there is a file of a worker that is dead, or a draft."""
        for name in files.listed(folder):
            found = files.NAME.match(name)
            if found is None or found["service"] != self.service or found["id"] is None:
                continue
            try:
                with files.opened(folder, name) as (file, _):
                    if found["what"] == "draft" or not files.is_held(file):
                        return True
            except (OSError, BadFileError):
                continue
        return False

    def _read(self, folder: int, exemplars: bool, *, only_dead: bool) -> Moment:
        faults: dict[str, Fault] = {}
        fold = self._read_fold(folder, faults)
        folded = frozenset() if fold is None else fold.folded
        workers: list[Source] = []
        leftover, drafts = [], []
        for name in files.listed(folder):
            found = files.NAME.match(name)
            if found is None:
                self._note(folder, name, "garbage", faults)
                continue
            if found["service"] != self.service or found["id"] is None:
                continue
            id_ = bytes.fromhex(found["id"])
            if found["what"] == "draft":
                drafts.append(name)
            elif id_ in folded:
                leftover.append(name)
            elif not only_dead or len(workers) < BATCH:
                workers += self._read_worker(folder, name, id_, faults, exemplars, only_dead)
        return Moment(
            fold=fold,
            workers=tuple(workers),
            leftover=tuple(leftover),
            drafts=tuple(drafts),
            faults=faults,
        )

    def _read_worker(
        self,
        folder: int,
        name: str,
        id_: bytes,
        faults: dict[str, Fault],
        exemplars: bool,
        only_dead: bool,
    ) -> tuple[Source, ...]:
        try:
            with files.opened(folder, name) as (file, status):
                # Asked first: a process that ends meanwhile is read as live, and folded whole the next time.
                live = files.is_held(file)
                if live and only_dead:
                    return ()
                header = _header(file, status, WORKER, self.service, id_)
                keys = self._keys(file, header)
                cells = array("d", files.read(file, 8 * keys.cells, header.cells_at))
                length = EXEMPLAR_BYTES * header.exemplars_used if exemplars else 0
                seen = files.read(file, length, header.exemplars_at)
        except FileNotFoundError:
            return ()
        except BadFileError as error:
            self._note(folder, name, error.reason, faults)
            return ()
        except OSError:
            self._note(folder, name, "error", faults)
            return ()
        if not keys.sound and not live:
            self._note(folder, name, "garbage", faults)
        source = Source(
            name=name,
            id=id_,
            live=live,
            created=header.created,
            entries=keys.entries,
            cells=cells,
            exemplars=seen,
        )
        return (source,)

    def _keys(self, file: int, header: Header) -> _Keys:
        known = self._parsed.get(header.id)
        if known is None or known.length != header.keys_used or not known.sound:
            blob = files.read(file, header.keys_used, HEADER_BYTES)
            known = _keys(blob, header.cells, self._definitions)
            self._parsed[header.id] = known
        return known

    def _read_fold(self, folder: int, faults: dict[str, Fault]) -> Fold | None:
        name = files.fold_name(self.service)
        try:
            with files.opened(folder, name) as (file, status):
                header = _header(file, status, FOLD, self.service)
                if self._fold is not None and self._fold.id == header.id:
                    return self._fold
                body = files.read(file, header.size - HEADER_BYTES, HEADER_BYTES)
        except FileNotFoundError:
            return None
        except BadFileError as error:
            self._note(folder, name, error.reason, faults)
            return None
        except OSError:
            self._note(folder, name, "error", faults)
            return None
        if crc32(body) != header.body_crc:
            self._note(folder, name, "garbage", faults)
            return None
        return _fold(name, header, body, self._definitions)

    def _fold_mark(self, folder: int) -> object:
        """What tells one fold from the next, whether or not it can be read."""
        try:
            with files.opened(folder, files.fold_name(self.service)) as (file, status):
                start = os.pread(file, COUNTS_AT, 0)
                return start, status.st_ino, status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            return None
        except (BadFileError, OSError) as error:
            return str(error)

    def _note(self, folder: int, name: str, reason: str, faults: dict[str, Fault]) -> None:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if reason == "garbage":
                with files.opened(folder, name):
                    reason = "garbage" if found.st_size else "empty"
        except FileNotFoundError:
            return
        except BadFileError as error:
            reason = error.reason
        except OSError:
            reason = "error"
        mark = f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
        faults[name] = Fault(reason, mark)


def _header(
    file: int, status: os.stat_result, role: int, service: str, id_: bytes | None = None
) -> Header:
    header = parse_header(os.pread(file, HEADER_BYTES, 0), status.st_size)
    named = id_ is None or header.id == id_
    if header.role != role or header.service != service or not named:
        raise BadFileError("garbage")
    return header


def _keys(blob: bytes, cells: int, definitions: dict[bytes, Definition]) -> _Keys:
    entries, sound = parse_keys(blob, cells, definitions)
    used = max((entry.base + entry.definition.width for entry in entries), default=0)
    return _Keys(len(blob), tuple(entries), sound, used)


def _fold(name: str, header: Header, body: bytes, definitions: dict[bytes, Definition]) -> Fold:
    def region(start: int, end: int) -> bytes:
        return body[start - HEADER_BYTES : end - HEADER_BYTES]

    keys = _keys(region(HEADER_BYTES, HEADER_BYTES + header.keys_used), header.cells, definitions)
    source = Source(
        name=name,
        id=header.id,
        live=False,
        created=header.created,
        entries=keys.entries,
        cells=array("d", region(header.cells_at, header.exemplars_at)),
        exemplars=region(
            header.exemplars_at, header.exemplars_at + EXEMPLAR_BYTES * header.exemplars_used
        ),
        is_fold=True,
    )
    folded = frozenset(ids(region(header.folded_at, header.size)))
    return Fold(id=header.id, source=source, folded=folded)
