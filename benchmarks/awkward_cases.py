"""The awkward requests of comparison.py, and how to read from an exposition what was recorded of them."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

__all__ = ["CASES", "SLOW_S", "TOOLS", "Change", "Samples", "Server", "Tool", "baggage"]

SLOW_S: Final = 0.4
"""How long the service's slow parts take; the same figure stands in awkward_app.py."""
_SPOOFED: Final = 1_000
_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """How to read one tool's exposition. duration: its histogram of requests; sizes: of response bodies."""

    key: str
    title: str
    package: str
    duration: str
    route: str
    status: str
    sizes: str = ""
    metrics: str = "/metrics"
    sampled: str = "awkward_sampled_total"
    own_series: re.Pattern[str] = field(default=re.compile(r"^(http|starlette)"))


TOOLS: Final = (
    Tool(
        key="taskscope",
        title="taskscope",
        package="taskscope",
        duration="http_server_request_duration_seconds",
        route="http_route",
        status="http_response_status_code",
        sizes="http_server_response_body_size_bytes_sum",
        sampled='taskscope_tracing_requests_total{decision="sampled"}',
    ),
    Tool(
        key="instrumentator",
        title="prometheus-fastapi-instrumentator",
        package="prometheus-fastapi-instrumentator",
        duration="http_request_duration_seconds",
        route="handler",
        status="status",
        sizes="http_response_size_bytes_sum",
        sampled="",
    ),
    Tool(
        key="starlette_exporter",
        title="starlette_exporter",
        package="starlette-exporter",
        duration="starlette_request_duration_seconds",
        route="path",
        status="status_code",
        sampled="",
    ),
    Tool(
        key="opentelemetry",
        title="OpenTelemetry's FastAPI instrumentation",
        package="opentelemetry-instrumentation-fastapi",
        duration="http_server_request_duration_seconds",
        route="http_route",
        status="http_response_status_code",
        sizes="http_server_response_body_size_bytes_sum",
        metrics="/metrics/",
    ),
    Tool(
        key="native",
        title="FastAPI's own telemetry",
        package="fastapi",
        duration="http_server_request_duration_seconds",
        route="http_route",
        status="http_response_status_code",
        sizes="http_server_response_body_size_bytes_sum",
        metrics="/metrics/",
    ),
)


class Server:
    """One tool's service under way."""

    def __init__(self, tool: Tool, port: int, log: Path) -> None:
        self.tool = tool
        self.port = port
        self.log = log

    def get(self, path: str, *, method: str = "GET", **headers: str) -> int:
        """One request with a client that waits for the whole answer; the status."""
        return self._ask(path, method, headers)[0]

    def _ask(self, path: str, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def raw(self, text: str, *, read: bool = True) -> bytes:
        """Bytes on a connection of their own; without `read` the client leaves at once."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(text.encode("latin-1"))
            if not read:
                time.sleep(SLOW_S / 4)  # the handler is at work when the client leaves
                return b""
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def samples(self) -> Samples:
        """What /metrics says now."""
        text = self._ask(self.tool.metrics, "GET", {})[1].decode()
        found: Samples = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else _SAMPLE.match(line)
            # Scrapes that a tool counts are not what is asked; an empty label is none, as Prometheus has it.
            if match is not None and "/metrics" not in line:
                pairs = _LABEL.findall(match["labels"] or "")
                labels = tuple(sorted(pair for pair in pairs if pair[1]))
                found[match["name"], labels] = float(match["value"])
        return found


class Change:
    """What a block of requests moved."""

    def __init__(self, tool: Tool, before: Samples, after: Samples) -> None:
        self.tool = tool
        self.moved = {
            key: value - before.get(key, 0.0)
            for key, value in after.items()
            if value != before.get(key, 0.0) or key not in before
        }
        self.new = [key for key in after if key not in before]

    def counted(self) -> list[tuple[dict[str, str], float]]:
        """Labels and number of the requests that were counted."""
        wanted = f"{self.tool.duration}_count"
        return [
            (dict(labels), by)
            for (name, labels), by in self.moved.items()
            if name == wanted and by > 0
        ]

    def requests(self) -> str:
        """Route, status and outcome as they were recorded."""
        told = []
        for labels, by in self.counted():
            words = [labels.get(self.tool.route) or '""', labels.get(self.tool.status, "")]
            words += [labels.get("outcome", ""), f"× {by:g}" if by != 1 else ""]
            told.append(" ".join(f"`{word}`" if "/" in word else word for word in words if word))
        statuses = self._statuses_elsewhere()
        return "; ".join(told) + statuses if told else "nothing"

    def _statuses_elsewhere(self) -> str:
        # One tool keeps the status on another metric than the duration.
        if any(self.tool.status in labels for labels, _ in self.counted()):
            return ""
        found = {
            dict(labels).get("status", "")
            for (name, labels), by in self.moved.items()
            if name == "http_requests_total" and by > 0
        }
        return f" {', '.join(sorted(filter(None, found)))}" if found else ""

    def seconds(self) -> str:
        """The duration that was recorded."""
        total = sum(
            by for (name, _), by in self.moved.items() if name == f"{self.tool.duration}_sum"
        )
        return f"{total:.2f} s" if self.counted() else "nothing"

    def series(self) -> str:
        """How many series there are more."""
        return f"{sum(1 for name, _ in self.new if self.tool.own_series.match(name))} new series"

    def total(self, name: str) -> float | None:
        """By how much all series of one name moved together; None if there is none."""
        plain, _, wanted = name.partition("{")
        wanted_labels = set(_LABEL.findall(wanted))
        found = [
            by
            for (found_name, labels), by in self.moved.items()
            if found_name == plain and wanted_labels <= set(labels)
        ]
        return sum(found) if found else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One awkward thing. send: makes it happen. told: the cell of the table."""

    title: str
    send: Callable[[Server], object]
    told: Callable[[Server, Change], str]


def _requests(_server: Server, change: Change) -> str:
    return change.requests()


def _series(_server: Server, change: Change) -> str:
    return change.series()


def _with_seconds(_server: Server, change: Change) -> str:
    return f"{change.requests()}, {change.seconds()}"


def _scan(server: Server) -> None:
    for number in range(50):
        server.get(f"/wp-{number}/admin.php")


def _redirects(server: Server) -> None:
    for number in range(20):
        server.raw(f"GET /items/{number}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def _methods(server: Server) -> None:
    for number in range(20):
        server.raw(f"BREW{number} /items/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def _leave(server: Server) -> None:
    server.raw("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", read=False)


def _leave_stream(server: Server) -> None:
    server.raw("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", read=False)


def _first_byte(_server: Server, change: Change) -> str:
    first = change.total("http_server_response_time_to_first_byte_seconds_sum")
    own = f", first byte {first:.2f} s" if first is not None else ""
    return f"{change.seconds()}{own}"


def _stream_bytes(server: Server, change: Change) -> str:
    moved = change.total(server.tool.sizes) if server.tool.sizes else None
    return "nothing" if moved is None else f"{moved:g} bytes"


def _background(_server: Server, change: Change) -> str:
    ran = change.total("http_server_background_task_duration_seconds_sum")
    own = f", task {ran:.2f} s" if ran is not None else ""
    return f"request {change.seconds()}{own}"


def _failing_background(_server: Server, change: Change) -> str:
    failed = change.total('http_server_background_task_duration_seconds_count{outcome="error"}')
    own = f", task error × {failed:g}" if failed else ""
    return f"{change.requests()}{own}"


def _socket(server: Server) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = (
        "GET /socket/7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode())
        connection.recv(4096)
        connection.sendall(b"\x81\x82\x00\x00\x00\x00hi")  # a masked text frame, mask of zeros
        while connection.recv(4096):
            pass


def _socket_told(_server: Server, change: Change) -> str:
    found = sorted(
        {name for name, _ in change.moved if re.search("websocket|stream", name)}
        | {name for name, labels in change.moved if "/socket" in str(labels)}
    )
    names = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in found}
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


def _spoof(server: Server) -> None:
    for number in range(_SPOOFED):
        parent = f"00-{number + 1:032x}-{number + 1:016x}-01"
        server.get("/items/a", traceparent=parent)


def _spoof_told(server: Server, change: Change) -> str:
    if not server.tool.sampled:
        return "does not trace"
    return f"{change.total(server.tool.sampled) or 0:g} of {_SPOOFED:,} sampled"


def baggage(server: Server) -> None:
    """One request with 60 kB of baggage."""
    members = ",".join(f"key{n}={'v' * 300}" for n in range(190))
    server.get("/items/a", baggage=members)


CASES: Final = (
    Case(
        title="`GET /api/v1/users/1/tasks/2`, nested routers",
        send=lambda s: s.get("/api/v1/users/1/tasks/2"),
        told=_requests,
    ),
    Case(
        title="`GET /tenants/7/items/1`, a mounted app",
        send=lambda s: s.get("/tenants/7/items/1"),
        told=_requests,
    ),
    Case(title="50 paths of a scanner", send=_scan, told=_series),
    Case(title="20 redirects of a trailing slash", send=_redirects, told=_series),
    Case(title="20 invented methods (h11)", send=_methods, told=_series),
    Case(
        title="`POST` to a route of `GET`: 405",
        send=lambda s: s.get("/items/a", method="POST"),
        told=_requests,
    ),
    Case(title="a handler that raises", send=lambda s: s.get("/broken"), told=_requests),
    Case(
        title=f"the client leaves after {SLOW_S / 4:.1f} s of {SLOW_S} s",
        send=_leave,
        told=_with_seconds,
    ),
    Case(
        title=f"the client leaves a stream after {SLOW_S / 4:.1f} s",
        send=_leave_stream,
        told=_with_seconds,
    ),
    Case(title=f"a stream of {SLOW_S} s: time", send=lambda s: s.get("/stream"), told=_first_byte),
    Case(
        title="the same: bytes of its body (4,000)",
        send=lambda s: s.get("/stream"),
        told=_stream_bytes,
    ),
    Case(
        title=f"a background task of {SLOW_S} s",
        send=lambda s: s.get("/background"),
        told=_background,
    ),
    Case(
        title="a background task that raises after a 200",
        send=lambda s: s.get("/background/broken"),
        told=_failing_background,
    ),
    Case(title="a WebSocket: hello and goodbye", send=_socket, told=_socket_told),
    Case(
        title=f"{_SPOOFED:,} requests with a spoofed sampled flag, at 1 %",
        send=_spoof,
        told=_spoof_told,
    ),
)
