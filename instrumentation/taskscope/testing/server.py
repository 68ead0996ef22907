"""An ASGI app on a real socket of the loopback, for tests that need one: bytes, hang-ups, odd methods."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Literal

from taskscope.errors import EngineError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["serving"]

_START_S = 10.0


@contextmanager
def serving(app: ASGIApp, *, http: Literal["h11", "httptools", "auto"] = "auto") -> Iterator[str]:
    """Inside the block uvicorn serves `app`, its lifespan included; the value is its base URL.

    http: which parser reads the requests. Raises EngineError if it has not started within 10 s.
    """
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, http=http, log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)

        def run() -> None:
            with suppress(SystemExit):  # uvicorn's word for an app that did not start
                server.run(sockets=[listener])

        thread = Thread(target=run, name="taskscope-testing-server", daemon=True)
        thread.start()
        deadline = monotonic() + _START_S
        while not server.started and thread.is_alive() and monotonic() < deadline:
            sleep(0.005)
        if not server.started:
            raise EngineError(
                "uvicorn did not start within 10 s; look at what the app's lifespan raised"
            )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(_START_S)
