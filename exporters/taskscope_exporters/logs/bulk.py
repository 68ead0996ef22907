"""One bulk request, and what the server's answer says became of its lines."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from taskscope_exporters.logs.client import Cause, Trouble, translated
from taskscope_exporters.logs.portions import Sendable
from taskscope_exporters.logs.settings import ShipSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Dead", "Outcome", "read_answer", "send"]

_FILTER: Final = (
    "errors",
    "items.*._index",
    "items.*.status",
    "items.*.error.type",
    "items.*.error.reason",
)
_NDJSON: Final = {"accept": "application/json", "content-type": "application/x-ndjson"}
_PACKED: Final = {**_NDJSON, "content-encoding": "gzip"}
# A stream that cannot be written says nothing about a line.
_STREAM_FAULTS: Final = frozenset(
    {
        "cluster_block_exception",
        "index_closed_exception",
        "index_not_found_exception",
        "invalid_index_name_exception",
        "invalid_index_template_exception",
        "security_exception",
        "validation_exception",  # no backing index can be made: the cluster has all the shards it may have
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A line that can never be stored: its place in what was sent, the server's kind of error and its reason."""

    place: int
    kind: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the lines that were sent.

    stored, duplicates: how many are new, and were there before. again: the places of those to be sent again.
    doubtful: whether some of those may be stored all the same. dead: those that never can be. refusal: what the
    server has against the stream, not the lines. index: the backing index that took the last line, where it said so.
    strayed: how many were stored in another one than the caller named.
    """

    stored: int = 0
    duplicates: int = 0
    again: list[int] = field(default_factory=list)
    doubtful: bool = False
    dead: list[Dead] = field(default_factory=list)
    refusal: Trouble | None = None
    index: str = ""
    strayed: int = 0

    def add(self, other: Outcome, start: int) -> None:
        """This is also what became of the lines from the place `start` on."""
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.again += [start + place for place in other.again]
        self.doubtful |= other.doubtful
        self.dead += [
            Dead(place=start + dead.place, kind=dead.kind, reason=dead.reason)
            for dead in other.dead
        ]
        self.refusal = self.refusal or other.refusal
        self.index = other.index or self.index
        self.strayed += other.strayed


class _Error(msgspec.Struct, gc=False):
    type: str = ""
    reason: str | None = None


class _Result(msgspec.Struct, gc=False):
    status: int
    error: _Error | None = None
    index: str = msgspec.field(default="", name="_index")


class _Item(msgspec.Struct, gc=False):
    create: _Result


class _Glance(msgspec.Struct, gc=False):
    """Enough to know that all is well, without a look at each item."""

    errors: bool
    items: list[msgspec.Raw]


_glance: Final = msgspec.json.Decoder(_Glance)
_item: Final = msgspec.json.Decoder(_Item)


def send(
    client: Elasticsearch,
    settings: ShipSettings,
    stream: str,
    lines: Sendable,
    *,
    expected: str = "",
) -> Outcome:
    """What became of the lines, each sent once. Raises Trouble if the request as a whole did not get through.

    A line that was stored by an earlier request, whose answer was lost, is a duplicate: its id tells, as long as the
    stream writes to the same backing index. A request that is refused for its content is halved until the line is
    found that it is refused for. expected: the backing index that lines count as strayed from.
    """
    try:
        with translated(settings):
            answer = client.perform_request(
                "PUT",
                f"/{stream}/_bulk",
                # Without our template the server would make a plain index, or use a template of its own.
                params={"filter_path": ",".join(_FILTER), "require_data_stream": "true"},
                headers=_PACKED if settings.gzip else _NDJSON,
                body=_packed(lines.body()) if settings.gzip else lines.body(),
            ).body
    except Trouble as trouble:
        if trouble.cause is not Cause.MALFORMED:
            raise
        return _narrowed(client, settings, stream, lines, trouble, expected)
    return read_answer(answer, len(lines), settings, expected=expected)


def _packed(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _narrowed(
    client: Elasticsearch,
    settings: ShipSettings,
    stream: str,
    lines: Sendable,
    trouble: Trouble,
    expected: str,
) -> Outcome:
    if len(lines) == 1:
        return Outcome(dead=[Dead(place=0, kind="refused_request", reason=str(trouble))])
    half = len(lines) // 2
    found = Outcome()
    for start, end in ((0, half), (half, len(lines))):
        part = range(start, end)
        try:
            sent = send(client, settings, stream, lines.only(part), expected=expected)
        except Trouble as later:
            # What the other half's answer said holds; only this one's is not known.
            if not start:
                raise
            sent = Outcome(again=[*range(len(part))], doubtful=later.doubtful, refusal=later)
        found.add(sent, start)
    return found


def read_answer(
    answer: object, count: int, settings: ShipSettings, *, expected: str = ""
) -> Outcome:
    """The answer to a bulk request of `count` lines. Raises Trouble if it is none.

    answer: as it came, in bytes, or taken apart already.
    """
    try:
        seen = _glance.decode(answer if isinstance(answer, bytes) else msgspec.json.encode(answer))
        last = _item.decode(seen.items[-1]).create if seen.items else _Result(status=0)
        fine = not seen.errors and last.status < 300
        results = [] if fine else [_item.decode(item).create for item in seen.items]
    except msgspec.MsgspecError as error:
        raise _nonsense(settings, str(error)) from error
    if len(seen.items) != count:
        raise _nonsense(settings, f"{len(seen.items)} answers for {count} lines")
    if fine:
        strayed = count if expected and last.index and last.index != expected else 0
        return Outcome(stored=count, index=last.index, strayed=strayed)
    return _outcome(results, settings, expected)


def _nonsense(settings: ShipSettings, why: str) -> Trouble:
    return Trouble(
        Cause.UNREACHABLE,
        f"{settings.url} answered something else than a bulk response ({why:.100}); the lines wait on disk",
        doubtful=True,
    )


def _outcome(results: Sequence[_Result], settings: ShipSettings, expected: str) -> Outcome:
    found = Outcome(index=results[-1].index)
    for place, result in enumerate(results):
        status = result.status
        if status < 300:
            found.stored += 1
            found.strayed += bool(expected and result.index and result.index != expected)
        elif status == 409:
            found.duplicates += 1
        else:
            _judge(found, place, result, settings)
    if len(found.again) == len(results) and found.refusal is None:
        # Such as a disk above its flood stage: the answer is 200, and yet no line is taken.
        error = results[0].error or _Error()
        found.refusal = Trouble(
            Cause.OVERLOADED,
            f"{settings.url} takes no line now ({error.type}: {error.reason or '':.200}); give it room or time, the "
            "lines wait on disk",
        )
    return found


def _judge(found: Outcome, place: int, result: _Result, settings: ShipSettings) -> None:
    status, error = result.status, result.error or _Error()
    kind, reason = error.type or str(status), f"{error.reason or '':.500}"
    if status == 429 or status >= 500:
        found.again.append(place)
        # A shard that died on the way may have kept the line; one that is full has not begun with it.
        found.doubtful |= status >= 500
    elif status in (401, 403, 404) or kind in _STREAM_FAULTS:
        found.again.append(place)
        found.refusal = Trouble(Cause.REFUSED, _remedy(status, kind, reason, settings))
    else:
        found.dead.append(Dead(place=place, kind=kind, reason=reason))


def _remedy(status: int, kind: str, reason: str, settings: ShipSettings) -> str:
    if status == 404:
        return (
            f"{settings.url} has no template for the data stream ({reason:.200}); let a login that may manage index "
            "templates ship once; the lines wait on disk"
        )
    if kind in _STREAM_FAULTS - {"security_exception"}:
        return (
            f"{settings.url} cannot write to the data stream ({status} {kind}: {reason:.200}); mend that in "
            "Elasticsearch, the lines wait on disk"
        )
    return (
        f"{settings.url} does not let this login write ({status}: {reason:.200}); give it create_doc and "
        "auto_configure on the data stream; the lines wait on disk"
    )
