"""One Elasticsearch over TLS, and one without that may be killed, for all tests of this folder that ask for them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch, NotFoundError

from taskscope.logs.spool import Spool
from taskscope.testing.engines import (
    HOST,
    Missing,
    Running,
    Spec,
    free_ports,
    jdk,
    new_password,
    running,
    start,
)
from taskscope.testing.engines import elasticsearch as es
from taskscope.testing.engines.spec import LogReady
from taskscope.testing.waiting import until
from taskscope_exporters.logs.settings import Secret, ShipSettings

from .faulty import Faulty

ADMIN = es.EsUser(name="admin", password=new_password(), role=es.ADMIN)
WRITER = es.EsUser(name="writer", password=new_password(), role=es.SHIPPER)
CLERK = es.EsUser(
    name="clerk",
    password=new_password(),
    role=es.EsRole(
        name="clerk",
        indices=("logs-*",),
        privileges=("create_doc", "auto_configure"),
        cluster=("manage_own_api_key",),
    ),
)


class Authority:
    """Signs certificates of a day, made by openssl in a folder of its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.certificate = self.folder / "ca.pem"
        self._openssl("req", "-x509", *_KEY, "ca.key", "-out", "ca.pem", "-subj", f"/CN={name}")

    def sign(self, name: str, names: str, *, days: int = 1) -> tuple[Path, Path]:
        """The certificate for `names` such as `DNS:a,IP:127.0.0.1`, and its key. days: 0 for one that has expired."""
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        self._openssl("req", *_KEY, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", f"{name}.ext", "-days", str(days)),
            *("-out", f"{name}.pem"),
        )
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """A server that is spoken to over TLS. certificate: its own; authority: whose it is."""

    url: str
    authority: Authority
    certificate: Path

    def settings(self, spool: Path, user: es.EsUser = ADMIN, **more: object) -> ShipSettings:
        """How `user` finds it."""
        values: dict[str, object] = {
            "spool": spool,
            "url": self.url,
            "username": user.name,
            "password": Secret(text=user.password),
            "ca_cert": self.authority.certificate,
            "backoff_s": 0.5,
        }
        return ShipSettings(**(values | more))  # type: ignore[arg-type] # any setting

    def client(self) -> Elasticsearch:
        """The superuser's."""
        return Elasticsearch(
            self.url,
            basic_auth=(ADMIN.name, ADMIN.password),
            ca_certs=str(self.authority.certificate),
        )

    def environ(self, user: es.EsUser = ADMIN) -> dict[str, str]:
        """The same for a command."""
        return {
            "ELASTICSEARCH_URL": self.url,
            "ELASTICSEARCH_USERNAME": user.name,
            "ELASTICSEARCH_PASSWORD": user.password,
            "ELASTICSEARCH_CA_CERT": str(self.authority.certificate),
        }

    def is_well(self) -> bool:
        """Whether it answers a login: it says `started` before it does."""
        with self.client() as client, suppress(TransportError, ApiError):
            return client.cluster.health(timeout="1s")["status"] != "red"
        return False

    def count(self, stream: str) -> int:
        """How many lines the stream holds."""
        with self.client() as client:
            try:
                client.indices.refresh(index=stream)
                return int(client.count(index=stream)["count"])
            except NotFoundError:
                return 0


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.sign("node", f"IP:{HOST}")
    port, transport_port = free_ports(2)
    try:
        spec = es.elasticsearch(
            folder / "elasticsearch",
            port=port,
            transport_port=transport_port,
            users=[ADMIN, WRITER, CLERK],
            settings={
                "xpack.security.http.ssl.enabled": "true",
                "xpack.security.http.ssl.certificate": "node.pem",
                "xpack.security.http.ssl.key": "node.key",
            },
        )
    except Missing as missing:
        pytest.skip(str(missing))
    made = Secured(url=f"https://{HOST}:{port}", authority=authority, certificate=certificate)
    with running(_with_certificate(spec, authority, certificate, key)):
        until(made.is_well, within_s=120, every_s=0.5)
        yield made


def _with_certificate(spec: Spec, authority: Authority, certificate: Path, key: Path) -> Spec:
    (config,) = {path.parent for path in spec.files if path.name == "elasticsearch.yml"}
    chain = certificate.read_text() + authority.certificate.read_text()
    files = {config / "node.pem": chain, config / "node.key": key.read_text()}
    return replace(spec, files={**spec.files, **files}, ready=LogReady(text="started"))


SHIPPER = es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER)
READER = es.EsUser(name="reader", password=new_password(), role=es.READER)
ASKER = es.EsUser(
    name="asker",
    password=new_password(),
    role=es.EsRole(
        name="asker",
        indices=("logs-*",),
        privileges=(*es.SHIPPER.privileges, "indices:data/read/mget*", "view_index_metadata"),
    ),
)


class Node:
    """A server without TLS, which faults can be put before, and which can be killed and started again with its data."""

    def __init__(self, folder: Path, java: jdk.Jdk | None = None) -> None:
        self.port, transport_port = free_ports(2)
        self.users = {user.name: user for user in (ADMIN, SHIPPER, ASKER, READER)}
        self.spec = es.elasticsearch(
            folder,
            port=self.port,
            transport_port=transport_port,
            users=[*self.users.values()],
            java=java,
        )
        self.url = f"http://{HOST}:{self.port}"
        self.server: Running = start(self.spec)

    def again(self) -> None:
        """It runs again after it was killed."""
        self.server = start(self.spec)

    def settings(self, spool: Path, user: str = "admin", **more: object) -> ShipSettings:
        """How the user finds it."""
        values: dict[str, object] = {
            "spool": spool,
            "url": self.url,
            "username": user,
            "password": Secret(text=self.users[user].password),
            "backoff_s": 0.5,
        }
        return ShipSettings(**(values | more))  # type: ignore[arg-type] # any setting

    def client(self) -> Elasticsearch:
        """The superuser's."""
        return Elasticsearch(self.url, basic_auth=(ADMIN.name, ADMIN.password))

    def documents(self, stream: str) -> list[dict[str, object]]:
        """All that the stream holds, at most 10,000."""
        with self.client() as client:
            try:
                client.indices.refresh(index=stream)
            except NotFoundError:
                return []
            found = client.search(index=stream, size=10_000, track_total_hits=True)
        assert found["hits"]["total"]["value"] == len(found["hits"]["hits"])
        return [{"_id": hit["_id"], **hit["_source"]} for hit in found["hits"]["hits"]]

    def is_well(self) -> bool:
        """Whether it answers a login: it says `started` before it does."""
        with self.client() as client, suppress(TransportError, ApiError):
            return client.cluster.health(timeout="1s")["status"] != "red"
        return False

    def count(self, stream: str) -> int:
        """How many lines the stream holds."""
        with self.client() as client:
            try:
                client.indices.refresh(index=stream)
                return int(client.count(index=stream)["count"])
            except NotFoundError:
                return 0


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    try:
        made = Node(tmp_path_factory.mktemp("elasticsearch"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield made
    made.server.stop()


@pytest.fixture(scope="session")
def another_node() -> type[Node]:
    """For a test that needs one of its own."""
    return Node


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    made = Faulty()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 26, segment_bytes=1 << 16, sync_s=None)
    yield made
    made.close()
