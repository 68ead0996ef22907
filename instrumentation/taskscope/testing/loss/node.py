"""The Elasticsearch of a matrix: it can be stopped, killed and started again, and is asked what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskscope.testing.engines import HOST, Running, free_ports, new_password, start
from taskscope.testing.engines import elasticsearch as es
from taskscope.testing.engines.spec import taken
from taskscope.testing.waiting import until

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Node"]

_PAGE: Final = 10_000
_TIMEOUT_S: Final = 60
_WRITTEN: Final[Mapping[str, Any]] = {"exists": {"field": "labels.writer"}}


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

    def close(self) -> None:
        """It was asked to end and has."""
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

    def client(self) -> Elasticsearch:
        """A client that may do everything."""
        from elasticsearch import Elasticsearch

        return Elasticsearch(
            self.url,
            basic_auth=(self.admin.name, self.admin.password),
            request_timeout=_TIMEOUT_S,
        )

    def count(self, stream: str) -> int:
        """How many documents the writers' lines have become; 0 while the stream is not there."""
        from elasticsearch import NotFoundError

        with self.client() as client:
            try:
                client.indices.refresh(index=stream)
                return int(client.count(index=stream, query=_WRITTEN)["count"])
            except NotFoundError:
                return 0

    def documents(self, stream: str) -> Counter[tuple[str, int]]:
        """How many documents there are by writer and number, each one looked at."""
        found: Counter[tuple[str, int]] = Counter()
        if not self.count(stream):
            return found
        with self.client() as client:
            pit = client.open_point_in_time(index=stream, keep_alive="2m")["id"]
            after: list[Any] | None = None
            while True:
                page = client.search(
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
                    client.close_point_in_time(id=pit)
                    return found
                after = hits[-1]["sort"]
