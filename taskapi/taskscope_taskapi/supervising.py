"""uvicorn as every instance runs it: one process, or several workers behind one socket.

The workers share a listener and, by `TASKSCOPE_MULTIPROCESS_DIR`, one answer to Prometheus.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from taskscope.errors import TaskscopeError
from taskscope_taskapi.app import create_app
from taskscope_taskapi.serving import Parser, protocol_class
from taskscope_taskapi.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["InstanceConfig", "serve_by_workers", "worker_app"]

_FACTORY: Final = f"{__name__}:worker_app"
_NOT_STARTED: Final = 3
"""uvicorn's exit status of a worker that would fail the same way if it were started again."""


class InstanceConfig(uvicorn.Config):
    """uvicorn's configuration, with the deadline and the bounds of `serving`. app: None for workers."""

    def __init__(
        self, app: FastAPI | None, settings: Settings, *, parser: Parser, workers: int = 1
    ) -> None:
        super().__init__(
            _FACTORY if app is None else app,
            factory=app is None,
            workers=workers,
            ws="none",
            lifespan="on",
            log_config=None,  # `instrument` has routed uvicorn's loggers
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=settings.header_bytes,
            timeout_graceful_shutdown=settings.shutdown_s,
        )
        self._parser: Parser = parser
        self._settings = settings

    def load(self) -> None:
        """The app and the protocol are made in the process that serves: neither can be sent to another."""
        self.http = protocol_class(
            self._parser,
            header_s=self._settings.header_s,
            header_bytes=self._settings.header_bytes,
            connections=self._settings.concurrency,
        )
        super().load()


def worker_app() -> FastAPI:
    """The application of one worker, from the environment that all share; where it cannot be, the process ends."""
    # What uvicorn says of a failed start comes when logging leads nowhere any more; the reason is in the log by then.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return create_app()
    except TaskscopeError as error:
        for sentence in str(error).splitlines():
            print(f"taskapi: {sentence}", file=sys.stderr)  # noqa: T201 # a terminal program
        # Any other status and uvicorn would start the worker again, for ever.
        sys.exit(_NOT_STARTED)


def serve_by_workers(
    settings: Settings, listener: socket.socket, *, parser: Parser, workers: int
) -> bool:
    """Whether the workers served until SIGTERM or SIGINT. One that dies is replaced; SIGHUP replaces all in turn."""
    # The supervisor has no service's log of its own; what it says is who died and who was started.
    logging.basicConfig(format="taskapi: %(message)s", level=logging.INFO)
    config = InstanceConfig(None, settings, parser=parser, workers=workers)
    supervisor = Multiprocess(config, sockets=[listener])
    supervisor.run()
    return all(process.exitcode != _NOT_STARTED for process in supervisor.processes)
