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

    from taskscope_taskapi.settings import Settings

__all__ = ["main"]

_BAD_INPUT: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT and gives 0; 2 for wrong settings, a port in use or no database."""
    given = _arguments().parse_args(arguments)
    try:
        from taskscope_taskapi.settings import Settings

        settings = Settings.from_environ(os.environ)
        listener = _listener(given.host, given.port)
        from taskscope_taskapi.app import (
            create_app,  # a second of imports, after the quick refusals
        )

        app = create_app(settings)
    except TaskscopeError as error:
        _complain(str(error))
        return _BAD_INPUT
    return _serve(app, settings, listener, given.http)


def _serve(app: FastAPI, settings: Settings, listener: socket.socket, parser: str) -> int:
    import uvicorn

    from taskscope_taskapi.serving import protocol_class

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_class(
                "h11" if parser == "h11" else "httptools" if parser == "httptools" else "auto",
                header_s=settings.header_s,
                header_bytes=settings.header_bytes,
                connections=settings.concurrency,
            ),
            ws="none",
            lifespan="on",
            log_config=None,  # `instrument` has routed uvicorn's loggers
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=settings.header_bytes,
            timeout_graceful_shutdown=settings.shutdown_s,
        )
    )
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
    return parser


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
