"""Whom the shipper trusts: an authority's file or a fingerprint; whom it does not, it names with the remedy."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope.testing.engines import HOST
from taskscope_exporters.logs.client import Cause, Trouble, connect, translated
from taskscope_exporters.logs.settings import Secret, ShipSettings

from .conftest import Authority, Secured


def asked(settings: ShipSettings) -> str:
    with translated(settings), connect(settings) as client:
        return str(client.info()["version"]["number"])


def fingerprint(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


@pytest.mark.engine
def test_an_authority_or_a_fingerprint_is_enough(secured: Secured, tmp_path: Path) -> None:
    own = fingerprint(secured.certificate)
    with_colons = ":".join(own[i : i + 2] for i in range(0, 64, 2)).upper()
    for trust in (
        {},
        {"ca_cert": None, "fingerprint": own},
        {"ca_cert": None, "fingerprint": with_colons},
        {"ca_cert": None, "fingerprint": fingerprint(secured.authority.certificate)},
    ):
        assert asked(secured.settings(tmp_path, **trust))


@pytest.mark.engine
def test_another_fingerprint_is_refused_before_the_login_is_sent(
    secured: Secured, tmp_path: Path
) -> None:
    with pytest.raises(Trouble, match="not the one of ELASTICSEARCH_FINGERPRINT; compare it"):
        asked(secured.settings(tmp_path, ca_cert=None, fingerprint="0" * 64))


@contextmanager
def answering(certificate: Path | None, key: Path | None) -> Iterator[int]:
    """A port that shakes hands with that certificate, or answers in plain text; yields what it heard of logins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                with suppress(OSError):
                    caller, _ = server.accept()
                    with caller:
                        caller.settimeout(2)
                        if certificate is None:
                            caller.recv(1024)
                            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        else:
                            context.wrap_socket(caller, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join(5)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder, "known"), Authority(folder, "unknown")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unknown", "signed by an authority that is not trusted here; name the authority's"),
        ("name", "is for another name; write a name of the certificate in ELASTICSEARCH_URL"),
        ("expired", "its certificate has expired; renew it on the server"),
        ("plain", "it speaks no TLS; write http: in ELASTICSEARCH_URL"),
        ("file", "ELASTICSEARCH_CA_CERT holds no certificate that can be read; name"),
    ],
)
def test_what_is_not_trusted_is_said_with_its_remedy(
    authorities: tuple[Authority, Authority], tmp_path: Path, fault: str, said: str
) -> None:
    known, unknown = authorities
    signer = unknown if fault == "unknown" else known
    names = "DNS:elsewhere.example" if fault == "name" else f"IP:{HOST}"
    pair = signer.sign(fault, names, days=0 if fault == "expired" else 1)
    trusted = known.certificate
    if fault == "file":
        trusted = tmp_path / "ca.pem"
        trusted.write_text("no certificate")
    with answering(*((None, None) if fault == "plain" else pair)) as port:
        settings = ShipSettings(
            url=f"https://{HOST}:{port}",
            username="u",
            password=Secret(text="p"),
            ca_cert=trusted,
        )
        with pytest.raises(Trouble, match=said) as caught:
            asked(settings)
    assert caught.value.cause is Cause.REFUSED
    assert "\n" not in str(caught.value)


def test_a_fingerprint_is_checked_where_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no SHA-256; write its 64 hexadecimal digits"):
        ShipSettings(url="https://es:9200", fingerprint="ab" * 20)
    with pytest.raises(SettingsError, match="begins with http:; write https:"):
        ShipSettings(fingerprint="ab" * 32)
    (tmp_path / "ca.pem").touch()
    with pytest.raises(SettingsError, match="both set; keep one of them"):
        ShipSettings(url="https://es:9200", fingerprint="ab" * 32, ca_cert=tmp_path / "ca.pem")
