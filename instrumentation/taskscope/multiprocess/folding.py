"""Dead workers' files become one, so that a scrape costs the same after any number of restarts.

The fold is written anew, synced and renamed into place with the ids of what it holds; only then are those files
removed. A crash at any step leaves each count in exactly one place that is read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from zlib import crc32

from taskscope.metrics.store import Exemplar
from taskscope.multiprocess import files
from taskscope.multiprocess.arranging import Metrics, everything
from taskscope.multiprocess.layout import (
    CELLS,
    EXEMPLARS,
    FOLD,
    BadFileError,
    Definition,
    Header,
    exemplar_record,
    key_record,
    values_bytes,
)
from taskscope.multiprocess.merging import Plan, latest, newest_first, total
from taskscope.multiprocess.reading import Moment

__all__ = ["fold_dead"]

_KEEPS: Final = frozenset({"version", "foreign", "error"})
"""Why an old fold is not replaced: a younger version of this library, or another user, counts in it, or it could not
be read just now."""


def fold_dead(
    folder: int, service: str, moment: Moment, metrics: Metrics, *, now: Callable[[], int]
) -> bool:
    """Dead workers are in the fold, and their files, and drafts that nobody writes to, are gone.

    Whether anything changed. The folder's lock is held by the caller, and `moment` was read since. Raises OSError.
    """
    stuck = moment.faults.get(files.fold_name(service))
    if stuck is not None and stuck.reason in _KEEPS:
        return False
    for name in moment.drafts:
        _remove_left(folder, name)
    names = list(moment.leftover)
    if moment.dead:
        content = _content(service, moment, metrics, created=now())
        draft = files.draft_name(service, secrets.token_bytes(16))
        files.put(folder, draft=draft, name=files.fold_name(service), content=content)
        names += [source.name for source in moment.dead]
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    return bool(names)


def _content(service: str, moment: Moment, metrics: Metrics, *, created: int) -> bytes:
    # The old fold comes first, so that what it holds never moves into `__overflow__` for want of room.
    old = () if moment.fold is None else (moment.fold.source,)
    sources = (*old, *newest_first(moment.dead))
    plan = everything(sources, metrics, room=CELLS)
    cells = total(plan.start, zip(plan.runs, (source.cells for source in sources), strict=True))
    # Ids of files that are gone are not carried on: they cannot come back.
    still = {bytes.fromhex(name.split(".")[1]) for name in moment.leftover}
    folded = sorted(still | {source.id for source in moment.dead})
    keys = _keys(plan)
    records = _exemplars(latest(plan.runs, sources, {}))
    room = len(keys) + -len(keys) % 8
    body = keys.ljust(room, b"\0") + cells.tobytes() + b"".join(records) + b"".join(folded)
    header = Header(
        role=FOLD,
        id=secrets.token_bytes(16),
        service=service,
        created=created,
        pid=os.getpid(),
        keys=room,
        cells=len(cells),
        exemplars=len(records),
        folded=len(folded),
        keys_used=len(keys),
        exemplars_used=len(records),
        body_crc=crc32(body),
    )
    return header.pack() + body


def _keys(plan: Plan) -> bytes:
    numbers: dict[Definition, int] = {}
    records = []
    for definition, series, base in zip(plan.definitions, plan.series, plan.bases, strict=True):
        if definition not in numbers:
            numbers[definition] = len(numbers)
            records.append(key_record(numbers[definition], definition))
        records.append(key_record(numbers[definition], values_bytes(series.values), base))
    return b"".join(records)


def _exemplars(found: dict[int, Exemplar]) -> list[bytes]:
    newest = sorted(found.items(), key=lambda item: item[1].at, reverse=True)[:EXEMPLARS]
    return [
        record
        for cell, exemplar in newest
        if (record := exemplar_record(cell, exemplar)) is not None
    ]


def _remove_left(folder: int, name: str) -> None:
    with suppress(OSError, BadFileError), files.opened(folder, name) as (file, _):
        if not files.is_held(file):
            os.unlink(name, dir_fd=folder)
