"""`python -m taskscope_taskapi`: one instance on loopback, or one sentence that says why not."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from taskscope.errors import TaskscopeError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from taskscope_taskapi.serving import Parser
    from taskscope_taskapi.settings import Settings

__all__ = ["main"]

_BAD_INPUT: Final = 2
_MOST_WORKERS: Final = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT and gives 0; 2 for wrong settings, a port in use or no database."""
    given = _arguments().parse_args(arguments)
    try:
        from taskscope_taskapi.settings import Settings

        settings = Settings.from_environ(os.environ)
        if given.workers > 1:
            _check_shared()
        listener = _listener(given.host, given.port)
        from taskscope_taskapi.app import (
            create_app,  # a second of imports, after the quick refusals
        )

        if given.workers == 1:
            return _serve(create_app(settings), settings, listener, given.http)
    except TaskscopeError as error:
        _complain(str(error))
        return _BAD_INPUT
    from taskscope_taskapi.supervising import serve_by_workers

    if not serve_by_workers(settings, listener, parser=given.http, workers=given.workers):
        _complain("a worker did not start; read the log")
        return _BAD_INPUT
    return 0


def _serve(app: FastAPI, settings: Settings, listener: socket.socket, parser: Parser) -> int:
    import uvicorn

    from taskscope_taskapi.supervising import InstanceConfig

    server = uvicorn.Server(InstanceConfig(app, settings, parser=parser))
    # What uvicorn says of a failed start comes when logging leads nowhere any more; the reason is in the log by then,
    # and a terminal is told it in one sentence below.
    logging.getLogger().addHandler(logging.NullHandler())
    for wish in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has shut down; it was a wish, and the end is no failure.
        signal.signal(wish, lambda *_: None)
    try:
        server.run(sockets=[listener])
    except (
        SystemExit
    ):  # uvicorn's word for an app that did not start; the reason is in the log, too
        _complain(getattr(app.state, "refusal", "the service did not start; read its log"))
        return _BAD_INPUT
    return 0


def _check_shared() -> None:
    from taskscope.settings import Settings as Telemetry

    if Telemetry.from_environ(os.environ).multiprocess_dir is None:
        raise TaskscopeError(
            "--workers: each worker would answer Prometheus with its own share; "
            "name a folder for all of this instance in TASKSCOPE_MULTIPROCESS_DIR"
        )


def _complain(text: str) -> None:
    for sentence in text.splitlines():
        print(f"taskapi: {sentence}", file=sys.stderr)  # noqa: T201 # a terminal program


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises TaskscopeError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TaskscopeError(
            f"--port {port}: {host}:{port} cannot be listened on ({reason}); "
            "stop what uses it, or choose another with --port"
        ) from error
    listener.set_inheritable(False)
    return listener


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m taskscope_taskapi",
        description="Serve the task API; settings are TASKAPI_*.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--http",
        choices=("auto", "h11", "httptools"),
        default="auto",
        help="parser of requests (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        choices=range(1, _MOST_WORKERS + 1),
        metavar=f"1..{_MOST_WORKERS}",
        default=1,
        help="processes behind the port (%(default)s); more need TASKSCOPE_MULTIPROCESS_DIR",
    )
    return parser


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
