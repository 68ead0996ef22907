"""A proxy before a real Elasticsearch that falsifies its answers to bulk requests, by chance and seed or on demand.

What it withholds from the server it reports as rejected, so that the truth stays checkable: what the server holds is
what was stored, whatever the client was told.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from taskscope.testing.faultproxy.tcp import reset

__all__ = ["BulkFaults", "BulkProxy"]

_JSON: Final = [("Content-Type", "application/json"), ("X-Elastic-Product", "Elasticsearch")]
_NOT_PASSED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "host",
        "transfer-encoding",
    }
)
_REJECTED: Final = {"type": "es_rejected_execution_exception", "reason": "injected"}
_UNAVAILABLE: Final = {"type": "unavailable_shards_exception", "reason": "injected"}
_UNPARSABLE: Final = {"type": "document_parsing_exception", "reason": "injected"}
_NOTHING: Final = b'{"took":0,"errors":false,"items":[]}'
_JOIN_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkFaults:
    """How likely each fault is, from 0 to 1.

    p429, p503: per line, withheld and reported so. p400: per line, by what it says, so the same one each time.
    drop_answer: per request, stored and then a reset instead of an answer. whole_429, whole_503: per request.
    slow: per request, answered `slow_s` later. retry_after_s: what whole refusals bid the client to wait, if at all.
    """

    p429: float = 0.0
    p503: float = 0.0
    p400: float = 0.0
    drop_answer: float = 0.0
    whole_429: float = 0.0
    whole_503: float = 0.0
    slow: float = 0.0
    slow_s: float = 8.0
    retry_after_s: int | None = None


class BulkProxy:
    """Inside its block `url` leads to the Elasticsearch at `to_port` of this machine, with faults in bulk requests.

    faults: may be replaced while it runs. refused: the ids of the lines that were reported as 400.
    drop_next: so many coming bulk requests are stored and not answered, whatever the faults say.
    lose_next: so many never reach the server, and are not answered. after_drop: called when an answer was dropped,
    before the client knows: the moment of doubt. after_loss: the same when a request was lost.
    counts: requests, lines, and each fault by its name.
    """

    def __init__(self, to_port: int, *, faults: BulkFaults | None = None, seed: int = 1) -> None:
        self.to_port = to_port
        self.faults = faults or BulkFaults()
        self.refused: set[str] = set()
        self.drop_next = 0
        self.lose_next = 0
        self.after_drop: Callable[[], None] | None = None
        self.after_loss: Callable[[], None] | None = None
        self.counts: Counter[str] = Counter()
        self.closing = threading.Event()
        self._rng = random.Random(seed)  # noqa: S311 # chance of a test
        self._lock = threading.Lock()
        self._server = _Server(self)

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """The same as an address of HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="faultproxy-bulk", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join(_JOIN_S)

    def happens(self, name: str, chance: float) -> bool:
        """Whether a fault of this chance happens now; counted if so."""
        if not chance:
            return False
        with self._lock:
            happens = self._rng.random() < chance
            self.counts[name] += happens
        return happens

    def takes_one(self, name: str) -> bool:
        """Whether one of `drop_next` or `lose_next` was left; it is used up."""
        with self._lock:
            left = int(getattr(self, name))
            if left:
                setattr(self, name, left - 1)
                self.counts[name] += 1
        return left > 0

    def verdict(self, action: bytes, line: bytes) -> dict[str, Any] | None:
        """What is reported for a line that is withheld; None for one that the server gets."""
        self.counts["lines"] += 1
        operation, meta = next(iter(json.loads(action).items()))
        faults = self.faults
        if zlib.crc32(line) % 10_000 < faults.p400 * 10_000:
            self.refused.add(meta["_id"])
            self.counts["p400"] += 1
            return {operation: {"_id": meta["_id"], "status": 400, "error": _UNPARSABLE}}
        if self.happens("p429", faults.p429):
            return {operation: {"_id": meta["_id"], "status": 429, "error": _REJECTED}}
        if self.happens("p503", faults.p503):
            return {operation: {"_id": meta["_id"], "status": 503, "error": _UNAVAILABLE}}
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: BulkProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in [*self._open]:
            reset(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or the server hung up; that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with suppress(OSError, ValueError):
            super().finish()

    def do_GET(self) -> None:  # the standard library's name
        proxy = self.server.proxy
        proxy.counts["requests"] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, 31)
        if urlsplit(self.path).path.endswith("/_bulk"):
            self._bulk(proxy, body)
        else:
            self._answer(*self._forward(self.path, body))

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815 # as above

    def _bulk(self, proxy: BulkProxy, body: bytes) -> None:
        proxy.counts["bulk"] += 1
        faults = proxy.faults
        if proxy.takes_one("lose_next"):
            if proxy.after_loss is not None:
                proxy.after_loss()
            return self._hang_up()
        for status, chance in ((429, faults.whole_429), (503, faults.whole_503)):
            if proxy.happens(f"whole_{status}", chance):
                return self._refuse(status, faults.retry_after_s)
        parts = body.split(b"\n")[:-1]
        verdicts = [proxy.verdict(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
        kept = [
            part
            for at, verdict in enumerate(verdicts)
            if verdict is None
            for part in (parts[2 * at], parts[2 * at + 1])
        ]
        status, headers, answer = 200, [*_JSON], _NOTHING
        if kept:
            body = b"\n".join((*kept, b""))
            status, headers, answer = self._forward(_unfiltered(self.path), body)
        if proxy.takes_one("drop_next") or proxy.happens("drop_answer", faults.drop_answer):
            if proxy.after_drop is not None:
                proxy.after_drop()
            return self._hang_up()
        if proxy.happens("slow", faults.slow):
            proxy.closing.wait(faults.slow_s)
        if status == 200:
            answer = _merged(answer, verdicts)
        return self._answer(status, headers, answer)

    def _forward(self, path: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(
                "127.0.0.1", self.server.proxy.to_port, timeout=60
            )
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED
        }
        self._upstream.request(self.command, path, body, headers)
        response = self._upstream.getresponse()
        passed = [each for each in response.getheaders() if each[0].lower() not in _NOT_PASSED]
        return response.status, passed, response.read()

    def _refuse(self, status: int, retry_after_s: int | None) -> None:
        wait = [] if retry_after_s is None else [("Retry-After", str(retry_after_s))]
        body = {"error": _REJECTED if status == 429 else _UNAVAILABLE, "status": status}
        self._answer(status, [*_JSON, *wait], json.dumps(body).encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        reset(self.connection)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _unfiltered(path: str) -> str:
    """The request's path without the wish for a part of the answer: all of it is needed to merge what was withheld."""
    parts = urlsplit(path)
    query = urlencode([each for each in parse_qsl(parts.query) if each[0] != "filter_path"])
    return urlunsplit(parts._replace(query=query))


def _merged(answer: bytes, verdicts: Sequence[dict[str, Any] | None]) -> bytes:
    """The server's answer with what was withheld at its place."""
    found = json.loads(answer)
    stored = iter(found["items"])
    found["items"] = [next(stored) if verdict is None else verdict for verdict in verdicts]
    found["errors"] = found["errors"] or any(verdict is not None for verdict in verdicts)
    return json.dumps(found).encode()
