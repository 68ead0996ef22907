"""Lines out of Elasticsearch: one cheap request a page, bounded in time, in lines and in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskscope.logs.fields import FIELDS, FieldType
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.reading.conditions import Present, Query
from taskscope_exporters.logs.reading.counting import Tally
from taskscope_exporters.logs.reading.dsl import query_of
from taskscope_exporters.logs.reading.entry import Entry, entry
from taskscope_exporters.logs.reading.source import MOST_LINES, Counted, Counts, ReadError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["PAGE", "Server", "ServerError"]

PAGE: Final = 500
"""The most lines of one request; a line is at most 32 KiB."""

_KEEP: Final = "1m"
_SERVER_TIMEOUT: Final = "8s"
_PROBE_S: Final = 3.0
_SORT_KEY: Final = "@timestamp"
_FILTER: Final = (
    "pit_id",
    "timed_out",
    "_shards.failed",
    "hits.hits._id",
    "hits.hits._source",
    "hits.hits.sort",
    "aggregations",
)
_BRIEF: Final = ("@timestamp", "trace.id", "http.request.id")


class ServerError(ReadError):
    """For whoever reads from Elasticsearch: it gives no lines. what: the sentence's part without the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


@dataclass(slots=True, kw_only=True)
class Server:
    """Elasticsearch as a source. index: the streams that are read. partial: whether an answer lacked a shard."""

    client: Elasticsearch
    url: str
    index: str
    partial: bool = False

    def newest_at(self, query: Query) -> int | None:
        """When its newest line was logged that the query asks for, in microseconds since 1970; None if it has none.

        It is also how a caller learns, within 3 s, whether the server answers.
        """
        client = self.client.options(request_timeout=_PROBE_S)
        with self._asking():
            answer = self._search(client, query, size=1, source={"includes": ["@timestamp"]})
        return next((line.at for line in _entries(answer)), None)

    def newest(self, query: Query, limit: int) -> Iterator[Entry]:
        """The newest lines that the query asks for, the newest first. Raises ReadError."""
        return self._newest(query, limit, source=None)

    def after(self, query: Query, *, known: Sequence[str]) -> Sequence[Entry]:
        """The oldest PAGE lines that the query asks for, without those whose ids are known. Raises ReadError."""
        asked = query_of(query)
        if known:
            asked = {"bool": {"filter": [asked], "must_not": [{"ids": {"values": list(known)}}]}}
        with self._asking():
            answer = self.client.search(
                index=self.index,
                query=asked,
                size=PAGE,
                sort=[{_SORT_KEY: {"order": "asc", "unmapped_type": "date"}}],
                track_total_hits=False,
                filter_path=_FILTER,
                timeout=_SERVER_TIMEOUT,
            ).body
        return list(self._judged(answer))

    def top(self, query: Query, field: str, rows: int) -> Counts:
        """The most frequent values of a field. Texts, which it cannot count, are counted of the newest lines."""
        query = Query(
            conditions=(*query.conditions, Present(field=field)),
            since=query.since,
            until=query.until,
        )
        if FIELDS.get(field) is FieldType.TEXT:
            tally = Tally(field)
            for line in self._newest(
                query, MOST_LINES, source={"includes": [*_BRIEF, field]}, page=2 * PAGE
            ):
                tally.add(line)
            return tally.counts(rows, cut=tally.lines >= MOST_LINES)
        newest = {
            "top_hits": {
                "size": 1,
                "sort": [{_SORT_KEY: "desc"}],
                "_source": list(_BRIEF),
            }
        }
        counting = {"terms": {"field": field, "size": rows}, "aggs": {"newest": newest}}
        with self._asking():
            answer = self.client.search(
                index=self.index,
                query=query_of(query),
                size=0,
                aggs={"values": counting},
                track_total_hits=False,
                filter_path=_FILTER,
                timeout=_SERVER_TIMEOUT,
            ).body
        self._note(answer)
        return _counts(answer)

    def _newest(
        self, query: Query, limit: int, *, source: Mapping[str, object] | None, page: int = PAGE
    ) -> Iterator[Entry]:
        if limit <= page:
            with self._asking():
                answer = self._search(self.client, query, size=limit, source=source)
            yield from self._judged(answer)
            return
        yield from self._paged(query, limit, source, page)

    def _paged(
        self, query: Query, limit: int, source: Mapping[str, object] | None, page: int
    ) -> Iterator[Entry]:
        """Pages of one point in time: its hidden order of documents tells equal times apart."""
        with self._asking():
            pit = str(self.client.open_point_in_time(index=self.index, keep_alive=_KEEP)["id"])
        after: list[Any] | None = None
        try:
            while limit > 0:
                with self._asking():
                    answer = self._search(
                        self.client,
                        query,
                        size=min(page, limit),
                        source=source,
                        pit=pit,
                        after=after,
                    )
                lines = list(self._judged(answer))
                yield from lines
                if len(lines) < min(page, limit):
                    return
                limit -= len(lines)
                pit = str(answer.get("pit_id", pit))
                after = _last_sort(answer)
        finally:
            with suppress(Exception):  # it ends by itself within a minute
                self.client.close_point_in_time(id=pit)

    def _search(
        self,
        client: Elasticsearch,
        query: Query,
        *,
        size: int,
        source: Mapping[str, object] | None,
        pit: str | None = None,
        after: list[Any] | None = None,
    ) -> Mapping[str, object]:
        found = client.search(
            index=None if pit else self.index,
            pit={"id": pit, "keep_alive": _KEEP} if pit else None,
            query=query_of(query),
            size=size,
            sort=[{_SORT_KEY: {"order": "desc", "unmapped_type": "date"}}],
            search_after=after,
            source=source,
            track_total_hits=False,
            filter_path=_FILTER,
            timeout=_SERVER_TIMEOUT,
        )
        body: Mapping[str, object] = found.body
        return body

    def _judged(self, answer: Mapping[str, object]) -> Iterator[Entry]:
        self._note(answer)
        return _entries(answer)

    def _note(self, answer: Mapping[str, object]) -> None:
        shards = answer.get("_shards")
        failed = shards.get("failed", 0) if isinstance(shards, Mapping) else 0
        self.partial = self.partial or bool(failed) or bool(answer.get("timed_out"))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Within it, a failure of the client is raised as ServerError."""
        from elastic_transport import (
            ConnectionTimeout,
            SerializationError,
            TlsError,
            TransportError,
        )
        from elasticsearch import ApiError, UnsupportedProductError

        try:
            yield
        except Trouble as trouble:
            raise ServerError(f"{self.url} cannot be asked", str(trouble)) from trouble
        except (UnsupportedProductError, SerializationError) as error:
            raise ServerError(
                f"{self.url} is not Elasticsearch", "correct ELASTICSEARCH_URL"
            ) from error
        except ApiError as error:
            raise _answered(self.url, error.meta.status, error.body) from error
        except ConnectionTimeout as error:
            raise ServerError(
                f"Elasticsearch at {self.url} does not answer in time", "ask for less, or try again"
            ) from error
        except TlsError as error:
            raise ServerError(
                f"Elasticsearch at {self.url} shows no certificate that is trusted",
                "correct ELASTICSEARCH_CA_CERT",
            ) from error
        except TransportError as error:
            raise ServerError(
                f"Elasticsearch at {self.url} does not answer",
                "start it, or correct ELASTICSEARCH_URL",
            ) from error


def _answered(url: str, status: int, body: object) -> ServerError:
    if status == 401:
        return ServerError(
            f"Elasticsearch at {url} does not know this login (401)",
            "set ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD",
        )
    if status == 403:
        return ServerError(
            f"Elasticsearch at {url} does not let this login read (403)",
            "give it read on logs-*; a key that ships cannot read",
        )
    if status in (408, 429) or status >= 500:
        return ServerError(f"Elasticsearch at {url} is overloaded ({status})", "try again")
    error = body.get("error") if isinstance(body, Mapping) else body
    causes = error.get("root_cause") if isinstance(error, Mapping) else None
    cause = causes[0] if isinstance(causes, list) and causes else error
    reason = cause.get("reason") if isinstance(cause, Mapping) else cause
    return ServerError(
        f"Elasticsearch at {url} cannot answer that ({status}: {reason!s:.200})", "ask otherwise"
    )


def _hits(answer: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    outer = answer.get("hits")
    hits = outer.get("hits") if isinstance(outer, Mapping) else None
    return [hit for hit in hits if isinstance(hit, Mapping)] if isinstance(hits, list) else []


def _entries(answer: Mapping[str, object]) -> Iterator[Entry]:
    for hit in _hits(answer):
        source = hit.get("_source")
        yield entry(str(hit.get("_id")), source if isinstance(source, Mapping) else {})


def _last_sort(answer: Mapping[str, object]) -> list[Any]:
    values = _hits(answer)[-1].get("sort")
    return list(values) if isinstance(values, list) else []


def _counts(answer: Mapping[str, object]) -> Counts:
    rows: list[Counted] = []
    others = 0
    aggregations = answer.get("aggregations")
    values = aggregations.get("values") if isinstance(aggregations, Mapping) else None
    if isinstance(values, Mapping):
        others = int(values.get("sum_other_doc_count", 0))
        for bucket in values.get("buckets", ()):
            newest = next(_entries(bucket["newest"]), None) or entry("", {})
            rows.append(
                Counted(value=str(bucket["key"]), count=int(bucket["doc_count"]), newest=newest)
            )
    return Counts(rows=rows, lines=others + sum(row.count for row in rows))
