"""Spans of gunicorn's workers, forked from a process that had loaded the app: each exports its own, at its stop too."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from taskscope.testing.waiting import until

_APP = """
import os
from fastapi import FastAPI
from taskscope import Settings, instrument

app = FastAPI()

@app.get("/worker")
async def worker() -> int:
    return os.getpid()

instrument(
    app, service_name="test", service_version="1", logs=False,
    settings=Settings(otlp_endpoint=os.environ["RECEIVER"]),
)
"""
REQUESTS = 40


@contextmanager
def _receiver() -> Iterator[tuple[str, list[Any]]]:
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _gunicorn(folder: Path, receiver: str) -> Iterator[str]:
    (folder / "preloaded.py").write_text(_APP, "utf-8")
    log = (folder / "gunicorn.log").open("wb")
    with log, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "preloaded:app", "--preload", "--workers", "2"),
                *("--worker-class", "uvicorn_worker.UvicornWorker", "--no-control-socket"),
                *("--bind", f"fd://{listener.fileno()}", "--graceful-timeout", "10"),
            ],
            cwd=folder,
            env={"PYTHONPATH": str(folder), "RECEIVER": receiver, "PATH": "/usr/bin:/bin"},
            pass_fds=[listener.fileno()],
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _answer(url: str) -> int | None:
    try:
        return int(httpx2.get(f"{url}/worker", timeout=5).text)
    except httpx2.HTTPError:
        return None


def test_every_span_of_preloaded_workers_is_exported_once(tmp_path: Path) -> None:
    with _receiver() as (endpoint, spans):
        with _gunicorn(tmp_path, endpoint) as url:
            until(lambda: _answer(url), within_s=20, saying="gunicorn answers")
            workers = {_answer(url) for _ in range(REQUESTS - 1)}
        assert None not in workers
        assert len({span.span_id for span in spans}) == len(spans) == REQUESTS
        assert {span.name for span in spans} == {"GET /worker"}
