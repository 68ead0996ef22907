"""What a refused TLS connection means, in one sentence with its remedy."""

from __future__ import annotations

import re
from typing import Final

from taskscope_exporters.logs.settings import ShipSettings

__all__ = ["distrusted"]

# What the client says, what it means, what to do.
_CAUSES: Final = (
    (
        "no certificate or crl|PEM lib|no start line|bad base64|Is a directory|No such file|Permission denied",
        "the file of ELASTICSEARCH_CA_CERT holds no certificate that can be read",
        "name the authority's certificate (PEM)",
    ),
    (
        "certificate has expired",
        "its certificate has expired",
        "renew it on the server",
    ),
    (
        "certificate is not yet valid",
        "its certificate is not valid yet",
        "set this machine's clock, or the server's certificate",
    ),
    (
        r"hostname mismatch|IP address mismatch|doesn't match|not valid for",
        "its certificate is for another name",
        "write a name of the certificate in ELASTICSEARCH_URL",
    ),
    (
        "fingerprint",
        "its certificate is not the one of ELASTICSEARCH_FINGERPRINT",
        "compare it with `openssl x509 -fingerprint -sha256` of the server's own certificate",
    ),
    (
        "self.signed certificate|unable to get (local )?issuer|signature failure|unknown ca",
        "its certificate is signed by an authority that is not trusted here",
        "name the authority's certificate in ELASTICSEARCH_CA_CERT",
    ),
    (
        "wrong.version.number|http request|record layer failure|unexpected eof",
        "it speaks no TLS",
        "write http: in ELASTICSEARCH_URL, or switch TLS on at the server",
    ),
)


def distrusted(settings: ShipSettings, said: str) -> str:
    """The sentence for a connection whose TLS failed. said: what the client's error says."""
    for pattern, meaning, remedy in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            return f"no trusted connection to {settings.url}: {meaning}; {remedy}, the lines wait on disk"
    return (
        f"no trusted connection to {settings.url} ({said:.200}); correct ELASTICSEARCH_CA_CERT, the lines wait "
        "on disk"
    )
