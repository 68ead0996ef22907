"""What the preview asks for its page: Prometheus by a few read-only calls, Elasticsearch by one search.

Both must listen on loopback: the page has no login of its own.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from taskscope.errors import TaskscopeError

__all__ = ["Answer", "Logs", "PreviewError", "Prometheus", "loopback"]

_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 16 * 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_LONGEST_QUERY: Final = 8192

_CALLS: Final[dict[str, tuple[str, ...]]] = {
    "query": ("query", "time"),
    "query_range": ("query", "start", "end", "step"),
    "query_exemplars": ("query", "start", "end"),
}


class PreviewError(TaskscopeError):
    """For who starts or asks the preview: an address, a parameter or an engine is not as it must be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send on: an HTTP status and a JSON body."""

    status: int
    body: bytes


def loopback(url: str, what: str) -> str:
    """`url` without a final slash. Raises PreviewError unless it is http on loopback."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise PreviewError(
            f"{what}: {url!r} is no address: {error}; write http://127.0.0.1:PORT"
        ) from error
    if parts.scheme != "http" or host not in _LOOPBACK or parts.username or parts.query:
        raise PreviewError(
            f"{what}: {url!r} is not http on loopback; this page has no login, so tunnel the server to "
            "http://127.0.0.1:PORT"
        )
    return url.rstrip("/")


# Proxies of the environment would see loopback queries; redirects could leave loopback.
class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())


def _fetch(request: urllib.request.Request, what: str) -> Answer:
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
            body = response.read(_MOST_BYTES + 1)
            status = int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(65_536))
    except OSError as error:
        raise PreviewError(
            f"{what} at {request.host} does not answer ({error}); is it running?"
        ) from error
    if len(body) > _MOST_BYTES:
        raise PreviewError(f"{what} answers more than 16 MiB; choose a shorter time or one route")
    return Answer(status, body)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Read-only calls of one Prometheus. Raises PreviewError for a parameter that is not as it must be."""

    url: str

    def call(self, name: str, parameters: Mapping[str, str]) -> Answer:
        """Its answer to `query`, `query_range`, `query_exemplars` or `label_values`."""
        if name == "label_values":
            label = parameters.get("label", "")
            if not _LABEL.match(label):
                raise PreviewError(
                    f"label {label!r} is not a label's name; take one of the catalogue's"
                )
            path = f"label/{label}/values"
            words = {
                "match[]": _query(parameters, "match"),
                **_numbers(parameters, ("start", "end")),
            }
        elif name in _CALLS:
            path = name
            expected = _CALLS[name]
            words = {"query": _query(parameters, "query"), **_numbers(parameters, expected[1:])}
        else:
            raise PreviewError(f"no call {name!r}; there is {', '.join((*_CALLS, 'label_values'))}")
        request = urllib.request.Request(f"{self.url}/api/v1/{path}?{urlencode(words)}")  # noqa: S310 loopback http, checked at start
        return _fetch(request, "Prometheus")


def _query(parameters: Mapping[str, str], name: str) -> str:
    text = parameters.get(name, "")
    if not 0 < len(text) <= _LONGEST_QUERY:
        raise PreviewError(f"{name} has {len(text)} characters; give 1 to {_LONGEST_QUERY}")
    return text


def _numbers(parameters: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    found = {name: parameters.get(name, "") for name in names}
    for name, value in found.items():
        if not _NUMBER.match(value):
            raise PreviewError(f"{name} is {value!r}; give seconds since 1970 or a step in seconds")
    return found


@dataclass(frozen=True, slots=True)
class Logs:
    """One search in one service's data streams. authorization: the header's value, or None."""

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def from_environ(cls, url: str, environ: Mapping[str, str] = os.environ) -> Logs:
        """With ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD or ELASTICSEARCH_PASSWORD_FILE, if given.

        Raises PreviewError if the file cannot be read or one of the two lacks.
        """
        user = environ.get("ELASTICSEARCH_USERNAME", "")
        password = environ.get("ELASTICSEARCH_PASSWORD", "")
        file = environ.get("ELASTICSEARCH_PASSWORD_FILE", "")
        if file and not password:
            try:
                password = Path(file).read_text("utf-8").strip()
            except OSError as error:
                raise PreviewError(
                    f"ELASTICSEARCH_PASSWORD_FILE: {file} cannot be read ({error.strerror}); correct the path"
                ) from error
        if bool(user) != bool(password):
            raise PreviewError(
                "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD belong together; set both or none"
            )
        if not user:
            return cls(url)
        return cls(url, f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")

    def search(self, service: str, body: Mapping[str, object]) -> list[dict[str, object]]:
        """The documents that the search finds, newest first. Raises PreviewError if it is refused."""
        stream = quote(f"logs-{service}-*", safe="*-")
        headers = {"Content-Type": "application/json"}
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(  # noqa: S310 loopback http, checked at start
            f"{self.url}/{stream}/_search?ignore_unavailable=true&allow_no_indices=true",
            data=json.dumps(body).encode(),
            headers=headers,
            method="POST",
        )
        answer = _fetch(request, "Elasticsearch")
        if answer.status != 200:
            raise PreviewError(
                f"Elasticsearch refuses the search with status {answer.status}; "
                "check ELASTICSEARCH_USERNAME and its password, or the mapping"
            )
        return _documents(answer.body)


def _documents(body: bytes) -> list[dict[str, object]]:
    try:
        hits = json.loads(body)["hits"]["hits"]
        return [dict(hit["_source"]) for hit in hits]
    except (ValueError, KeyError, TypeError) as error:
        raise PreviewError(
            "Elasticsearch answers something else than a search's result; is it one?"
        ) from error
