"""The bytes of a worker's file and of the fold, and nothing but them: packing and parsing, no I/O.

A file is a page of header and four regions: keys, cells, exemplars, ids of what was folded. Keys are appended and
their committed length is stored last, by one aligned store; every record bears a checksum, so that half a record
is noticed. Cells are doubles in the machine's own order, stored and loaded whole. A worker's file has a fixed
size and is sparse; the fold is as long as what it holds and its body bears a checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from taskscope.catalogue import Across, Kind
from taskscope.metrics.store import Exemplar

__all__ = [
    "CELLS",
    "CELLS_ROOM",
    "COUNTS_AT",
    "EXEMPLARS",
    "EXEMPLAR_BYTES",
    "FOLD",
    "HEADER_BYTES",
    "KEY_BYTES",
    "MAX_FILE_BYTES",
    "WORKER",
    "BadFileError",
    "Definition",
    "Entry",
    "Header",
    "exemplar_record",
    "exemplars",
    "ids",
    "key_record",
    "parse_header",
    "parse_keys",
    "values_bytes",
]

CELLS: Final = 262_144
"""How many doubles a worker has room for: 2 MiB, some 16,000 histograms; beyond, nothing more is allocated."""
KEY_BYTES: Final = 8 * 1024 * 1024
"""How many bytes a worker has for the names and label values of its series."""
EXEMPLARS: Final = 16_384
"""How many cells of a worker can have an exemplar."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""No file is read that is longer."""

HEADER_BYTES: Final = 4096
EXEMPLAR_BYTES: Final = 48
COUNTS_AT: Final = 128
"""Where two counts stand that a worker raises as it goes: bytes of keys, and exemplars."""
CELLS_ROOM: Final = 2 * CELLS
"""The most cells that a file may claim to have."""

WORKER: Final = 1
FOLD: Final = 2

_MAGIC: Final = b"\x89tskscp\n"
_VERSION: Final = 1
_FIXED: Final = struct.Struct("=8sII16s32sQQQQQQ")
_CRC: Final = struct.Struct("=I")
_COUNTS: Final = struct.Struct("=QQII")
_RECORD: Final = struct.Struct("=IIII")
_EXEMPLAR: Final = struct.Struct("=II16s8sdd")
_IS_DEFINITION: Final = 0xFFFF_FFFF


class BadFileError(Exception):
    """A file is left out. reason: one of those that `taskscope.multiprocess.files_skipped` lists."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says about itself.

    id: 128 random bits. created: nanoseconds since 1970. keys, cells, exemplars: room in bytes, doubles, records.
    keys_used, exemplars_used: how much of it is taken. folded: how many ids stand at the end. body_crc: of a fold.
    """

    role: int
    id: bytes
    service: str
    created: int
    pid: int
    keys: int
    cells: int
    exemplars: int
    folded: int = 0
    keys_used: int = 0
    exemplars_used: int = 0
    body_crc: int = 0

    @property
    def cells_at(self) -> int:
        return HEADER_BYTES + self.keys

    @property
    def exemplars_at(self) -> int:
        return self.cells_at + 8 * self.cells

    @property
    def folded_at(self) -> int:
        return self.exemplars_at + EXEMPLAR_BYTES * self.exemplars

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.folded_at + 16 * self.folded

    def pack(self) -> bytes:
        """The header's page."""
        fixed = _FIXED.pack(
            _MAGIC,
            _VERSION,
            self.role,
            self.id,
            self.service.encode(),
            self.created,
            self.pid,
            self.keys,
            self.cells,
            self.exemplars,
            self.folded,
        )
        counts = _COUNTS.pack(self.keys_used, self.exemplars_used, self.body_crc, 0)
        page = (fixed + _CRC.pack(crc32(fixed))).ljust(COUNTS_AT, b"\0") + counts
        return page.ljust(HEADER_BYTES, b"\0")


def parse_header(page: bytes, size: int) -> Header:
    """The header of a file of `size` bytes. Raises BadFileError for one that is not ours, cut, or too long."""
    if size == 0:
        raise BadFileError("empty")
    if len(page) < COUNTS_AT + _COUNTS.size or not page.startswith(_MAGIC):
        raise BadFileError("garbage")
    _, version, role, id_, service, created, pid, keys, cells, records, folded = _FIXED.unpack_from(
        page
    )
    if _CRC.unpack_from(page, _FIXED.size)[0] != crc32(page[: _FIXED.size]):
        raise BadFileError("garbage")
    if version != _VERSION:
        raise BadFileError("version")
    keys_used, exemplars_used, body_crc, _ = _COUNTS.unpack_from(page, COUNTS_AT)
    header = Header(
        role=role,
        id=id_,
        service=service.rstrip(b"\0").decode("ascii", "replace"),
        created=created,
        pid=pid,
        keys=keys,
        cells=cells,
        exemplars=records,
        folded=folded,
        keys_used=keys_used,
        exemplars_used=exemplars_used,
        body_crc=body_crc,
    )
    within = keys_used <= keys and exemplars_used <= records and cells <= CELLS_ROOM
    if not within or header.size != size or size > MAX_FILE_BYTES or keys % 8:
        raise BadFileError("garbage")
    return header


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Definition:
    """A metric as its process declared it. labels: their OpenTelemetry names. bounds: a histogram's.

    Equal only to itself, which is quick: `parse_keys` gives the same one for the same bytes.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    across: Across = Across.SUM

    @property
    def width(self) -> int:
        """How many cells a series of it takes."""
        return len(self.bounds) + 2 if self.kind is Kind.HISTOGRAM else 1


class Entry(NamedTuple):
    """One series of a file. values: its label values as JSON. base: its first cell."""

    definition: Definition
    values: bytes
    base: int


def values_bytes(values: tuple[str, ...]) -> bytes:
    """Label values as JSON; what UTF-8 cannot write becomes a question mark."""
    try:
        return msgspec.json.encode(values)
    except UnicodeEncodeError:
        return msgspec.json.encode([v.encode("utf-8", "replace").decode() for v in values])


def key_record(number: int, payload: Definition | bytes, base: int = _IS_DEFINITION) -> bytes:
    """A definition that gets `number`, or a series of the definition of that number at `base`."""
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return _RECORD.pack(len(body), _key_crc(body, number, base), number, base) + body


def parse_keys(blob: bytes, cells: int, known: dict[bytes, Definition]) -> tuple[list[Entry], bool]:
    """The series of a key region whose file has `cells` cells, and whether the region is sound to its end.

    A record that is torn, or not ours, ends the reading; what stands before it counts.
    known: definitions by their bytes, to which new ones are added.
    """
    definitions: dict[int, Definition] = {}
    found: list[Entry] = []
    at, end = 0, len(blob)
    while at + _RECORD.size <= end:
        length, crc, number, base = _RECORD.unpack_from(blob, at)
        body = blob[at + _RECORD.size : at + _RECORD.size + length]
        if len(body) != length or crc != _key_crc(body, number, base):
            break
        at += _RECORD.size + length
        if base == _IS_DEFINITION:
            try:
                definition = known.get(body) or msgspec.json.decode(body, type=Definition)
            except msgspec.MsgspecError:
                break
            definitions[number] = known[body] = definition
            continue
        owner = definitions.get(number)
        if owner is None or base + owner.width > cells:
            break
        found.append(Entry(owner, body, base))
    else:
        return found, at == end
    return found, False


def _key_crc(body: bytes, number: int, base: int) -> int:
    return crc32(body, number ^ (base << 1 & 0xFFFF_FFFF))


def exemplar_record(cell: int, exemplar: Exemplar) -> bytes | None:
    """The record of a cell's exemplar; None if its ids are not a trace's and a span's."""
    try:
        trace, span = bytes.fromhex(exemplar.trace_id), bytes.fromhex(exemplar.span_id)
    except ValueError:
        return None
    if len(trace) != 16 or len(span) != 8:
        return None
    record = _EXEMPLAR.pack(cell, 0, trace, span, exemplar.value, exemplar.at)
    return record[:4] + _CRC.pack(crc32(record)) + record[8:]


def exemplars(blob: bytes) -> Iterator[tuple[int, Exemplar]]:
    """Each cell with its exemplar; one that is being written just now is passed over."""
    whole = len(blob) - len(blob) % EXEMPLAR_BYTES
    for at in range(0, whole, EXEMPLAR_BYTES):
        cell, crc, trace, span, value, when = _EXEMPLAR.unpack_from(blob, at)
        record = blob[at : at + EXEMPLAR_BYTES]
        if crc == crc32(record[:4] + b"\0\0\0\0" + record[8:]):
            yield cell, Exemplar(trace.hex(), span.hex(), value, when)


def ids(blob: bytes) -> list[bytes]:
    """The ids in a fold's last region."""
    return [blob[at : at + 16] for at in range(0, len(blob), 16)]
