"""The `.db` files of prometheus_client's own multi-process mode, handed to it only where they are sound.

One file that is empty, garbage or a symlink makes every scrape of its collector raise; here it is left out.
Files of live gauges whose worker died are removed by `prometheus_client.multiprocess.mark_process_dead` only.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector

from taskscope.multiprocess.files import listed, opened, read
from taskscope.multiprocess.layout import MAX_FILE_BYTES, BadFileError

__all__ = ["Foreign", "foreign_multiprocess"]

_NAME: Final = re.compile(
    r"(?:counter|histogram|summary|gauge_(?:live)?(?:all|min|max|sum|mostrecent))_[0-9a-zA-Z.-]+\.db\Z"
)
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_USED: Final = struct.Struct("=i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What prometheus_client's workers counted. skipped: files left out, with the reason."""

    families: tuple[Family, ...]
    skipped: tuple[tuple[str, str], ...]


def foreign_multiprocess(folder: Path) -> Foreign:
    """The sum over the sound files in `folder`; a folder that cannot be listed is skipped as a whole."""
    sound: list[str] = []
    skipped: list[tuple[str, str]] = []
    try:
        opened_folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return Foreign(families=(), skipped=((str(folder), "error"),))
    try:
        for name in sorted(listed(opened_folder)):
            if not name.endswith(".db"):
                continue
            try:
                _check(opened_folder, name)
            except FileNotFoundError:
                continue
            except BadFileError as error:
                skipped.append((name, error.reason))
            except OSError:
                skipped.append((name, "error"))
            else:
                sound.append(name)
    finally:
        os.close(opened_folder)
    families, failed = _merged(folder, sound)
    return Foreign(families=families, skipped=(*skipped, *((name, "error") for name in failed)))


def _merged(folder: Path, names: Sequence[str]) -> tuple[tuple[Family, ...], Sequence[str]]:
    try:
        return _merge(folder, names), ()
    except Exception:  # noqa: BLE001 - changed since it was checked: what can be read is read
        kept: list[str] = []
        failed: list[str] = []
        for name in names:
            try:
                _merge(folder, [*kept, name])
                kept.append(name)
            except Exception:  # noqa: BLE001
                failed.append(name)
        try:
            return _merge(folder, kept), failed
        except Exception:  # noqa: BLE001
            return (), names


def _merge(folder: Path, names: Iterable[str]) -> tuple[Family, ...]:
    paths = [str(folder / name) for name in names]
    merged: Iterable[Family] = MultiProcessCollector.merge(paths)  # type: ignore[no-untyped-call] # ships no types
    return tuple(merged)


def _check(folder: int, name: str) -> None:
    """Raises BadFileError unless prometheus_client can read the file, and its text can be read by Prometheus."""
    with opened(folder, name) as (file, status):
        if status.st_size == 0:
            raise BadFileError("empty")
        if _NAME.match(name) is None or not _USED.size <= status.st_size <= MAX_FILE_BYTES:
            raise BadFileError("garbage")
        (used,) = _USED.unpack(read(file, _USED.size, 0))
        if not 0 <= used <= status.st_size:
            raise BadFileError("garbage")
        blob = read(file, used, 0)
    at = 8
    while at < used:
        at = _check_value(blob, at, is_histogram=name.startswith("histogram"))
    if used and at != used:
        raise BadFileError("garbage")


def _check_value(blob: bytes, at: int, *, is_histogram: bool) -> int:
    if at + 4 > len(blob):
        raise BadFileError("garbage")
    length: int = _USED.unpack_from(blob, at)[0]
    end = at + 4 + length + (8 - (length + 4) % 8) + 16
    if length <= 0 or end > len(blob):
        raise BadFileError("garbage")
    try:
        family, name, labels, text = msgspec.json.decode(
            blob[at + 4 : at + 4 + length], type=tuple[str, str, dict[str, str], str]
        )
        if is_histogram and "le" in labels:
            float(labels["le"])
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadFileError("garbage") from error
    del text
    if not (_METRIC.match(family) and _METRIC.match(name) and all(map(_LABEL.match, labels))):
        raise BadFileError("garbage")
    return end
