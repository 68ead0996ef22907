"""The Elasticsearch of a matrix: it can be stopped, killed and started again, and is asked what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskscope.testing.engines import HOST, Running, free_ports, new_password, start
from taskscope.testing.engines import elasticsearch as es
from taskscope.testing.engines.spec import taken
from taskscope.testing.waiting import until

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["ApiKey", "Node"]

_PAGE: Final = 10_000
_TIMEOUT_S: Final = 60
_RECOVERING: Final = 503
_WRITTEN: Final[Mapping[str, Any]] = {"exists": {"field": "labels.writer"}}

_WRITER: Final[Mapping[str, Any]] = {
    "indices": [{"names": es.SHIPPER.indices, "privileges": es.SHIPPER.privileges}]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of Elasticsearch: its id, and what is sent to log in with it."""

    id: str
    encoded: str = field(repr=False)


class Node:
    """A server on a port of its own, with security on; it runs from the start on and until `close`.

    settings: keys of elasticsearch.yml on top. Raises Missing where Elasticsearch was not installed.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.admin = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
        self.shipper = es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER)
        self.port, transport = free_ports(2)
        self._spec = es.elasticsearch(
            folder,
            port=self.port,
            transport_port=transport,
            users=[self.admin, self.shipper],
            settings=settings,
        )
        self.server: Running = start(self._spec)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def ensure(self) -> None:
        """It runs, whatever a cell left."""
        if not self.server.alive:
            self.again()

    def kill(self) -> None:
        """It died at once, as by a crash."""
        self.server.kill()

    def stop(self) -> None:
        """It was asked to end and has."""
        self.server.stop()

    def close(self) -> None:
        """It has ended for good."""
        self.client.close()
        self.server.stop()

    def again(self) -> None:
        """It runs again, on the data it had."""
        # A killed server of many threads lets go of its ports a moment after it counts as dead.
        until(
            lambda: not any(taken(port) for port in self._spec.ports),
            within_s=_TIMEOUT_S,
            saying="the ports of the server that ended are free",
        )
        self.server = start(self._spec)

    @cached_property
    def client(self) -> Elasticsearch:
        """A client that may do everything."""
        from elasticsearch import Elasticsearch

        # A connection that was kept while the server was restarted fails once.
        return Elasticsearch(
            self.url,
            basic_auth=(self.admin.name, self.admin.password),
            request_timeout=_TIMEOUT_S,
            max_retries=3,
        )

    def new_key(self) -> ApiKey:
        """A key that may write log streams and read none."""
        made = self.client.security.create_api_key(
            name="loss", role_descriptors={"writer": _WRITER}
        )
        return ApiKey(id=made["id"], encoded=made["encoded"])

    def revoke(self, key: ApiKey) -> None:
        """The key is good for nothing any more."""
        self.client.security.invalidate_api_key(ids=[key.id])

    def roll_over(self, stream: str) -> None:
        """New documents go to a new index of the stream."""
        self.client.indices.rollover(alias=stream)

    def map_action(self, service: str, kind: str) -> None:
        """The service's own template maps `event.action` so, in indices that are made from now on."""
        mappings = {"properties": {"event.action": {"type": kind}}}
        self.client.cluster.put_component_template(
            name=f"logs-{service}@custom", template={"mappings": mappings}
        )

    def hours(self, stream: str) -> int:
        """How many hours the stream's lines are of."""
        found = self.client.search(
            index=stream,
            size=0,
            aggs={
                "hours": {
                    "date_histogram": {
                        "field": "@timestamp",
                        "fixed_interval": "1h",
                        "min_doc_count": 1,
                    }
                }
            },
        )
        return len(found["aggregations"]["hours"]["buckets"])

    def count(self, stream: str) -> int:
        """How many documents of the writers can be found, a second after they came; 0 while there is no stream."""
        found = until(
            lambda: self._count(stream), within_s=_TIMEOUT_S, saying="the server can be searched"
        )
        return found[0] if found else 0

    def refresh(self, stream: str) -> None:
        """All that the stream holds can be found."""
        self.client.indices.refresh(index=stream)

    def _count(self, stream: str) -> tuple[int] | None:
        import elasticsearch

        try:
            return (int(self.client.count(index=stream, query=_WRITTEN)["count"]),)
        except elasticsearch.NotFoundError:
            return (0,)
        except elasticsearch.ConnectionError:
            return None
        except elasticsearch.ApiError as error:
            if error.meta.status != _RECOVERING:
                raise
            return None

    def documents(self, stream: str) -> Counter[tuple[str, int]]:
        """How many documents there are by writer and number, each one looked at."""
        found: Counter[tuple[str, int]] = Counter()
        if not self.client.indices.exists(index=stream):
            return found
        self.refresh(stream)
        pit = self.client.open_point_in_time(index=stream, keep_alive="2m")["id"]
        after: list[Any] | None = None
        while True:
            page = self.client.search(
                pit={"id": pit, "keep_alive": "2m"},
                query=_WRITTEN,
                size=_PAGE,
                sort=["_shard_doc"],
                search_after=after,
                source={"includes": ["labels.writer", "labels.seq"]},
                track_total_hits=False,
            )
            hits = page["hits"]["hits"]
            for hit in hits:
                labels = hit["_source"]["labels"]
                found[labels["writer"], int(labels["seq"])] += 1
            if len(hits) < _PAGE:
                self.client.close_point_in_time(id=pit)
                return found
            after = hits[-1]["sort"]
