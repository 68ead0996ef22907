"""One batch of lines as one bulk request, and the server's answer as one verdict per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

from taskscope.logs.segments import Line
from taskscope_exporters.logs.client import Cause, Trouble, translated
from taskscope_exporters.logs.settings import ShipSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Fate", "Verdict", "body_of", "send", "verdicts"]

_FILTER: Final = ("errors", "items.*.status", "items.*.error.type", "items.*.error.reason")
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


class Fate(Enum):
    """What became of a line."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One line's fate; for a line that is not stored, the server's kind of error and its reason."""

    fate: Fate
    kind: str = ""
    reason: str = ""


def body_of(lines: Sequence[Line]) -> bytes:
    """The request's body: for each line an action that creates it under its id, then the line as it is."""
    return b"".join(
        part
        for line in lines
        for part in (b'{"create":{"_id":"', line.id.encode("ascii"), b'"}}\n', line.raw)
    )


def send(
    client: Elasticsearch, settings: ShipSettings, stream: str, lines: Sequence[Line]
) -> tuple[Verdict, ...]:
    """One verdict per line, in their order. Raises Trouble if the request as a whole did not get through.

    A line that was stored by an earlier request, whose answer was lost, is a duplicate: its id tells.
    """
    with translated(settings):
        answer = client.bulk(
            index=stream,
            # The client sends bytes as they are; its types name only what it would encode itself.
            operations=cast("Sequence[Mapping[str, Any]]", (body_of(lines),)),
            filter_path=_FILTER,
            # Without our template the server would make a plain index, or use a template of its own.
            require_data_stream=True,
        ).body
    return verdicts(answer, len(lines), settings)


def verdicts(answer: object, count: int, settings: ShipSettings) -> tuple[Verdict, ...]:
    """The answer to a bulk request of `count` lines, read. Raises Trouble if it is none, or refuses the stream."""
    items = answer.get("items") if isinstance(answer, Mapping) else None
    if not isinstance(items, list) or len(items) != count:
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} answered something else than a bulk response; the lines wait on disk",
        )
    return tuple(_verdict(item, settings) for item in items)


def _verdict(item: object, settings: ShipSettings) -> Verdict:
    result = item.get("create") if isinstance(item, Mapping) else None
    status = result.get("status") if isinstance(result, Mapping) else None
    if not isinstance(result, Mapping) or not isinstance(status, int):
        return Verdict(fate=Fate.RETRY)
    if status < 300:
        return Verdict(fate=Fate.STORED)
    if status == 409:
        return Verdict(fate=Fate.DUPLICATE)
    error = result.get("error")
    details = error if isinstance(error, Mapping) else {}
    kind, reason = str(details.get("type", status)), f"{details.get('reason', '')!s:.500}"
    if status == 429 or status >= 500:
        return Verdict(fate=Fate.RETRY, kind=kind, reason=reason)
    if status in (401, 403, 404) or kind in _STREAM_FAULTS:
        raise Trouble(Cause.REFUSED, _remedy(status, kind, reason, settings))
    return Verdict(fate=Fate.DEAD, kind=kind, reason=reason)


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
