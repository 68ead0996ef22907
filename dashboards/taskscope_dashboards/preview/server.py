"""The preview's HTTP server on loopback: its own page, the boards, and read-only questions to the engines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from taskscope.catalogue import Catalogue
from taskscope_dashboards.layout import Placed, place
from taskscope_dashboards.logquery import LogQuery, search_body
from taskscope_dashboards.preview.runbooks import PREFIX, runbook
from taskscope_dashboards.preview.upstream import Answer, Logs, PreviewError, Prometheus
from taskscope_dashboards.render import boards, render

__all__ = ["Preview", "preview_server"]

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_CHOSEN: Final = 200

Parameters = Mapping[str, list[str]]


class Preview:
    """The boards of one catalogue and the engines behind them; answers requests, keeps nothing."""

    def __init__(
        self, catalogue: Catalogue, prometheus: Prometheus, logs: Logs | None, runbooks: Path | None
    ) -> None:
        self._service = catalogue.service
        self._prometheus = prometheus
        self._logs = logs
        self._runbooks = runbooks
        made = boards(catalogue)
        texts = render(catalogue)
        self._boards = {board.uid: texts[f"generated/{board.uid}.json"].encode() for board in made}
        self._titles = [{"uid": board.uid, "title": board.title} for board in made]
        self._queries: dict[tuple[str, str], LogQuery] = {
            (board.uid, str(item.id)): item.panel.logs
            for board in made
            for item in place(board)
            if isinstance(item, Placed) and item.panel.logs is not None
        }
        static = files("taskscope_dashboards.preview") / "static"
        self._static = {entry.name: entry.read_bytes() for entry in static.iterdir()}

    def static(self, name: str) -> tuple[bytes, str] | None:
        """A file of the page and its type, or None."""
        kind = _TYPES.get(name.rpartition(".")[2])
        body = self._static.get(name)
        return None if kind is None or body is None else (body, f"{kind}; charset=utf-8")

    def runbook(self, name: str) -> tuple[bytes, str] | None:
        """A runbook as plain text and its type, or None."""
        body = runbook(self._runbooks, name) if self._runbooks is not None else None
        return None if body is None else (body, "text/plain; charset=utf-8")

    def api(self, path: str, parameters: Parameters) -> Answer:
        """The answer to `/api/<path>`. Raises PreviewError for what it does not understand."""
        if path == "boards":
            return Answer(200, json.dumps(self._titles).encode())
        if path == "board":
            uid = _one(parameters).get("uid", "")
            if uid not in self._boards:
                raise PreviewError(f"no board {uid!r}; there is {', '.join(self._boards)}")
            return Answer(200, self._boards[uid])
        if path == "logs":
            return Answer(200, json.dumps({"lines": self._lines(parameters)}).encode())
        kind, _, call = path.partition("/")
        if kind == "prometheus":
            return self._prometheus.call(call, _one(parameters))
        raise PreviewError(f"no address /api/{path}; open / instead")

    def _lines(self, parameters: Parameters) -> list[dict[str, object]] | None:
        if self._logs is None:
            return None
        words = _one(parameters)
        query = self._queries.get((words.get("board", ""), words.get("panel", "")))
        times = [words.get(name, "") for name in ("from", "to")]
        if query is None or not all(text.isascii() and text.isdigit() for text in times):
            raise PreviewError(
                "no such log panel, or its times are no milliseconds; reload the page"
            )
        body = search_body(
            query,
            start_ms=int(times[0]),
            end_ms=int(times[1]),
            routes=parameters.get("route", [])[:_MOST_CHOSEN],
            levels=parameters.get("level", [])[:_MOST_CHOSEN],
            exceptions=parameters.get("exception", [])[:_MOST_CHOSEN],
            trace=words.get("trace", ""),
        )
        return self._logs.search(self._service, body)


def _one(parameters: Parameters) -> dict[str, str]:
    return {name: values[0] for name, values in parameters.items()}


class _Handler(BaseHTTPRequestHandler):
    """One request; the page's own host names and nothing else may ask, so no other site can through a browser."""

    protocol_version = "HTTP/1.1"
    server_version = "taskscope-preview"
    sys_version = ""
    timeout = 15

    def __init__(self, preview: Preview, *args: object) -> None:
        self._preview = preview
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver passes (request, address, server)

    def do_GET(self) -> None:
        if not self._asked_by_this_page():
            self._send(403, b'{"error": "open this page by its loopback address"}')
            return
        target = urlsplit(self.path)
        if target.path.startswith("/api/"):
            self._api(target.path.removeprefix("/api/"), target.query)
            return
        name = "index.html" if target.path == "/" or target.path.startswith("/d/") else None
        if target.path.startswith("/static/"):
            name = target.path.removeprefix("/static/")
        found = self._preview.static(name) if name else None
        if target.path.startswith(PREFIX):
            found = self._preview.runbook(target.path.removeprefix(PREFIX))
        if found is None:
            self._send(404, b'{"error": "no such page; open / instead"}')
        else:
            self._send(200, found[0], found[1])

    def _api(self, path: str, query: str) -> None:
        try:
            answer = self._preview.api(path, parse_qs(query, max_num_fields=256))
        except (PreviewError, ValueError) as error:
            self._send(400, json.dumps({"error": str(error)}).encode())
        else:
            self._send(answer.status, answer.body)

    def _asked_by_this_page(self) -> bool:
        # A foreign name that resolves to loopback (DNS rebinding) shows in Host; a foreign page in Sec-Fetch-Site.
        host, _, port = self.headers.get("Host", "").rpartition(":")
        own = host in ("127.0.0.1", "localhost") and port == str(self.connection.getsockname()[1])
        site = self.headers.get("Sec-Fetch-Site", "none")
        linked = self.headers.get("Sec-Fetch-Mode") == "navigate" and not self.path.startswith(
            "/api/"
        )
        return own and (site in ("none", "same-origin") or linked)

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a page that asks forty times in ten seconds would bury what matters."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who left before the answer is no error of ours; all else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on as given


def preview_server(
    catalogue: Catalogue,
    *,
    prometheus: Prometheus,
    logs: Logs | None = None,
    runbooks: Path | None = None,
    port: int = 0,
) -> ThreadingHTTPServer:
    """A server that listens on 127.0.0.1, not yet serving: call `serve_forever`, then `shutdown`.

    runbooks: the folder of the runbooks that alerts and boards link to, if they are to be read here.
    port: 0 for a free one; `server_address[1]` tells which. Raises OSError if it is taken.
    """
    preview = Preview(catalogue, prometheus, logs, runbooks)
    return _Server(("127.0.0.1", port), partial(_Handler, preview))
