"""One Elasticsearch for all tests of this folder that ask for it: over TLS, with security on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch, NotFoundError

from taskscope.testing.engines import HOST, Missing, Spec, free_ports, new_password, running
from taskscope.testing.engines import elasticsearch as es
from taskscope.testing.engines.spec import LogReady
from taskscope_exporters.logs.settings import Secret, ShipSettings

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
    with running(_with_certificate(spec, authority, certificate, key)):
        yield Secured(url=f"https://{HOST}:{port}", authority=authority, certificate=certificate)


def _with_certificate(spec: Spec, authority: Authority, certificate: Path, key: Path) -> Spec:
    (config,) = {path.parent for path in spec.files if path.name == "elasticsearch.yml"}
    chain = certificate.read_text() + authority.certificate.read_text()
    files = {config / "node.pem": chain, config / "node.key": key.read_text()}
    return replace(spec, files={**spec.files, **files}, ready=LogReady(text="started"))
