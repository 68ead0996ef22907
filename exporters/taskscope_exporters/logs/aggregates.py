"""What is asked of Elasticsearch about new lines, and its answer as counts. Pure: values in, values out.

One search for each shard that has new lines, all in one request: lines by level and dataset, lines of errors by
exception type and route. What goes beyond a bound is no page more but one sum, so the counts stay whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskscope.catalogue.metric import OVERFLOW
from taskscope_exporters.logs.client import Cause, Trouble
from taskscope_exporters.logs.marks import Window

__all__ = ["ERROR_LEVELS", "MOST_BUCKETS", "NONE", "Counts", "Pair", "counts", "searches"]

ERROR_LEVELS: Final = ("error", "critical")
NONE: Final = "none"
"""The value of a label where a line has no such field."""
MOST_BUCKETS: Final = 1_000
"""Different pairs in one answer; further ones are summed."""

Pair = tuple[str, str]

_LINES: Final = ("log.level", "event.dataset")
_ERRORS: Final = ("error.type", "http.route")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Lines of one window. total: as the search saw them. lines: by level and dataset. errors: by type and route."""

    total: int
    lines: Counter[Pair] = field(default_factory=Counter)
    errors: Counter[Pair] = field(default_factory=Counter)


def searches(windows: Sequence[Window]) -> list[Mapping[str, object]]:
    """The body of one `_msearch`: a head and a search for each window."""
    body: list[Mapping[str, object]] = []
    for window in windows:
        body.append(
            {
                "index": window.index,
                # The numbers are a shard's own, so each shard is asked for its own.
                "preference": f"_shards:{window.shard}",
                "allow_partial_search_results": False,
            }
        )
        body.append(_search(window))
    return body


def _search(window: Window) -> dict[str, object]:
    return {
        "size": 0,
        "track_total_hits": True,
        "query": {"range": {"_seq_no": {"gt": window.above, "lte": window.upto}}},
        "aggs": {
            "lines": _pairs(*_LINES),
            "errors": {
                "filter": {"terms": {"log.level": list(ERROR_LEVELS)}},
                "aggs": {"pairs": _pairs(*_ERRORS)},
            },
        },
    }


def _pairs(first: str, second: str) -> dict[str, object]:
    sources = [
        {name: {"terms": {"field": path, "missing_bucket": True}}}
        for name, path in (("a", first), ("b", second))
    ]
    return {"composite": {"size": MOST_BUCKETS, "sources": sources}}


def counts(answer: Mapping[str, object], windows: Sequence[Window]) -> tuple[Counts, ...]:
    """The answer to `searches(windows)`, one for each window. Raises Trouble if it is none, or one has failed."""
    responses = answer.get("responses")
    if not isinstance(responses, list) or len(responses) != len(windows):
        raise Trouble(
            Cause.UNREACHABLE,
            "what was answered is no answer to a search; look at what stands between",
        )
    return tuple(_counts(response) for response in responses)


def _counts(response: object) -> Counts:
    try:
        if response["status"] != 200 or response["timed_out"]:  # type: ignore[index] # a wrong shape is caught
            raise Trouble(Cause.OVERLOADED, f"a search has failed: {_reason(response)}")
        found = response["aggregations"]  # type: ignore[index] # as above
        total = int(response["hits"]["total"]["value"])  # type: ignore[index] # as above
        errors = found["errors"]
        return Counts(
            total=total,
            lines=_summed(found["lines"]["buckets"], total),
            errors=_summed(errors["pairs"]["buckets"], int(errors["doc_count"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Trouble(Cause.OVERLOADED, f"a search has failed: {_reason(response)}") from error


def _summed(buckets: Sequence[Mapping[str, object]], total: int) -> Counter[Pair]:
    """The buckets' counts; what `total` has beyond them is in one pair."""
    found: Counter[Pair] = Counter()
    for bucket in buckets:
        key, count = bucket["key"], bucket["doc_count"]
        if not isinstance(key, Mapping) or not isinstance(count, int):
            raise TypeError("no bucket of a composite aggregation")
        found[_text(key["a"]), _text(key["b"])] += count
    if rest := total - found.total():
        found[OVERFLOW, OVERFLOW] += rest
    return found


def _text(value: object) -> str:
    return NONE if value is None else str(value)


def _reason(response: object) -> str:
    error = response.get("error") if isinstance(response, Mapping) else None
    return f"{error if error is not None else response!s:.200}"
