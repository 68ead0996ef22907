"""A server that answers as Elasticsearch does, but as planned, and a shipper in a thread: for tests of this folder."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from taskscope.catalogue import Catalogue
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Shipper, ShipperMetrics

until = partial(waiting.until, within_s=15)

CATALOGUE = Catalogue(service="shop")
Plan = Callable[[list[str]], tuple[int, list[int]] | None]
"""For the ids of one bulk request: the response's status and one per item; None hangs up without an answer."""


_MADE_WHEN_MET = ("taskscope_logs_dead_letters_total",)


class Faulty(ThreadingHTTPServer):
    """Answers as Elasticsearch does, but as planned; remembers what it stored."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stored: dict[str, bytes] = {}
        self.plans: list[Plan] = []
        self.requests: list[int] = []

    def bulk(self, body: bytes) -> tuple[int, list[int]] | None:
        parts = body.split(b"\n")
        ids = [json.loads(part)["create"]["_id"] for part in parts[:-1:2]]
        self.requests.append(len(ids))
        plan = self.plans.pop(0)(ids) if self.plans else (200, [201] * len(ids))
        lines = dict(zip(ids, parts[1::2], strict=True))
        if plan is None:
            self.stored.update(lines)
            return None
        status, items = plan
        known = [
            409 if found == 201 and name in self.stored else found
            for name, found in zip(ids, items, strict=False)
        ]
        if status == 200:
            self.stored.update(
                {name: lines[name] for name, found in zip(ids, known, strict=False) if found == 201}
            )
        return status, known


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def do_GET(self) -> None:  # the standard library's name
        self._answer(404, {"error": {"type": "resource_not_found_exception"}})

    def do_PUT(self) -> None:  # as above
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if "/_bulk" not in self.path:
            self._answer(200, {"acknowledged": True})
            return
        answer = self.server.bulk(body)
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, items = answer
        found = [{"create": {"status": item, "error": {"type": f"e{item}"}}} for item in items]
        refusal = {"error": {"reason": "planned"}}
        self._answer(status, {"errors": True, "items": found} if status == 200 else refusal)

    do_POST = do_PUT  # noqa: N815 # as above

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", self.headers["accept"].split(",")[0])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Ship:
    """A shipper in a thread of its own, what it said, and its series."""

    def __init__(self, settings: ShipSettings) -> None:
        self.said: list[str] = []
        self.waits: list[float] = []
        self.stop = threading.Event()
        self.metrics = ShipperMetrics(CATALOGUE, settings)
        self.shipper = Shipper(
            settings=settings,
            catalogue=CATALOGUE,
            metrics=self.metrics,
            stop=self.stop,
            say=self.said.append,
            rng=random.Random(1),
            wait=self._wait,
        )

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.stop.wait(min(seconds, 0.01))

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None or name in _MADE_WHEN_MET, name
        return found or 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.shipper.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(15)
            assert not thread.is_alive()


@contextmanager
def shipping(settings: ShipSettings) -> Iterator[Ship]:
    ship = Ship(settings)
    with ship.running():
        yield ship


def fill(spool: Spool, count: int, *, start: int = 0) -> list[bytes]:
    lines = [b'{"n":%d}' % n for n in range(start, start + count)]
    for line in lines:
        spool.write(line + b"\n")
    return lines


def settings(spool: Spool, faulty: Faulty, **more: object) -> ShipSettings:
    return ShipSettings(spool=spool.folder, url=faulty.url, **more)  # type: ignore[arg-type] # any setting


def statuses(status: int, items: Callable[[int], int] = lambda _: 201) -> Plan:
    return lambda ids: (status, [items(at) for at in range(len(ids))])
