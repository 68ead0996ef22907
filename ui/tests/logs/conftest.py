"""A real Elasticsearch with log streams, for the tests of the terminal's commands, and a spool beside it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from taskscope.logs.looking import newest_first
from taskscope.logs.spool import Spool
from taskscope.testing.engines import HOST, Missing, free_ports, new_password, running
from taskscope.testing.engines import elasticsearch as es
from taskscope_exporters.logs.template import log_template

ADMIN = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
READER = es.EsUser(name="reader", password=new_password(), role=es.READER)
SHIPPER = es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER)
OURS = {"ELASTICSEARCH_URL", "OTEL_SERVICE_NAME", "TASKSCOPE_ENVIRONMENT", "TASKSCOPE_SPOOL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A server whose streams `stored` fills."""

    url: str
    _prepared: set[str] = field(default_factory=set)

    def client(self) -> Elasticsearch:
        return Elasticsearch(self.url, basic_auth=(ADMIN.name, ADMIN.password))

    def environ(self, user: str = "reader") -> dict[str, str]:
        """What a process logs in by, as reader, shipper or admin."""
        found = {each.name: each for each in (READER, SHIPPER, ADMIN)}[user]
        return {
            "ELASTICSEARCH_URL": self.url,
            "ELASTICSEARCH_USERNAME": found.name,
            "ELASTICSEARCH_PASSWORD": found.password,
        }

    def stored(self, service: str, documents: Mapping[str, Mapping[str, object]]) -> None:
        """The documents can be found in the service's stream, which has our mappings, under their ids."""
        operations: list[Mapping[str, object]] = []
        for key, found in documents.items():
            operations += [{"create": {"_id": key}}, found]
        with self.client() as client:
            if service not in self._prepared:
                self._prepare(client, service)
            answer = client.bulk(index=f"logs-{service}-local", operations=operations, refresh=True)
        assert not answer["errors"], answer

    def _prepare(self, client: Elasticsearch, service: str) -> None:
        client.indices.put_index_template(
            name=f"logs-{service}",
            index_patterns=[f"logs-{service}-*"],
            data_stream={},
            priority=300,
            template=log_template(service).component.body["template"],  # type: ignore[arg-type] # as it is put
        )
        self._prepared.add(service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines of one service, and the spool that it writes to."""

    service: str
    spool: Spool

    @property
    def folder(self) -> Path:
        return self.spool.folder

    def line(self, message: str, *, ago_s: float = 1.0, **more: object) -> dict[str, object]:
        at = datetime.now(UTC) - timedelta(seconds=ago_s)
        return {
            "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
            "log.level": "info",
            "message": message,
            "service.name": self.service,
            "service.environment": "local",
        } | more

    def numbered(self, n: int, *, ago_s: float = 0.0) -> dict[str, object]:
        return self.line("numbered", ago_s=ago_s, labels={"n": n})

    def write(self, *documents: Mapping[str, object]) -> None:
        for one in documents:
            self.spool.write(
                json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            )

    def spooled(self) -> dict[str, dict[str, object]]:
        """What the spool holds, by id, the oldest first."""
        found = sorted(newest_first(self.folder, since=0))
        return {line.id: json.loads(line.raw) for line in found}


class Terminal:
    """`taskscope logs` as a process of its own."""

    def words(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "taskscope_ui", "logs", *more]

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k not in OURS} | dict(more)

    def __call__(self, *more: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*more),
            env=self.environ(env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    port, transport_port = free_ports(2)
    folder = tmp_path_factory.mktemp("elasticsearch")
    try:
        spec = es.elasticsearch(
            folder, port=port, transport_port=transport_port, users=[ADMIN, READER, SHIPPER]
        )
    except Missing as missing:
        pytest.skip(str(missing))
    with running(spec):
        yield Node(url=f"http://{HOST}:{port}")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    """Of a service whose name no other test's stream has."""
    spool = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16)
    yield Lines(service=f"shop-{secrets.token_hex(4)}", spool=spool)
    spool.close()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()
