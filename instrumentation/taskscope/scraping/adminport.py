"""A port of the loopback that answers scrapes, and who may change the log level, in threads of its own.

With it `/metrics` is not on the port that the world reaches, and a scrape does not wait for a busy event loop.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from time import monotonic, sleep
from typing import Any, Final

from taskscope.errors import InstrumentError
from taskscope.scraping.exposition import FAILED, REFUSED, UNKNOWN, Answer, allowed, headers_of
from taskscope.scraping.logcontrol import LOGGING_PATH, MOST_BYTES, LogControl
from taskscope.scraping.scrapes import Scrapes, formatted, gzips

__all__ = ["AdminPort"]

_HOST: Final = "127.0.0.1"
_AT_ONCE: Final = 8
_CALLER_S: Final = 5.0
_POLL_S: Final = 0.1
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOT_HERE: Final = Answer(404, b"")
BROKEN: Final = Answer(500, b"the change could not be made; the service's log says why\n")


class AdminPort:
    """Answers `path` on `port` of the loopback from `start` to `close`; 0 takes any free port.

    logging: what answers `/logging`, or None.
    shared: several worker processes listen on the same port, and the system picks one for each connection.
    At most 8 scrapes at once; one more is hung up on. A caller that has not said what it wants within 5 s is not
    listened to any longer, and one that does not take its answer within 5 s is hung up on.
    """

    def __init__(
        self,
        scrapes: Scrapes,
        *,
        port: int,
        path: str,
        token: str | None,
        shared: bool,
        failed: Callable[[str, BaseException | None], None],
        logging: LogControl | None = None,
    ) -> None:
        self._logging = logging
        self._scrapes = scrapes
        self._wanted = port
        self._path = path
        self._token = token
        self._shared = shared
        self._failed = failed
        self._server: _Server | None = None

    @property
    def port(self) -> int | None:
        """The port that it listens on; None before `start` and after `close`."""
        return None if self._server is None else self._server.server_address[1]

    def start(self) -> None:
        """Scrapes are answered; the second call does nothing. Raises InstrumentError if the port is taken."""
        if self._server is not None:
            return
        try:
            server = _Server(self, (_HOST, self._wanted), shared=self._shared)
        except OSError as error:
            raise InstrumentError(
                f"metrics_port {self._wanted} cannot be listened on ({error.strerror}); free it or take another"
            ) from error
        self._server = server
        Thread(
            target=server.serve_forever, args=(_POLL_S,), name="taskscope-metrics", daemon=True
        ).start()

    def close(self) -> None:
        """Nobody listens any more; the second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def answer(self, path: str, header: Callable[[str], str]) -> Answer:
        """What a GET of `path` gets; never raises."""
        if path.partition("?")[0] != self._path:
            return _NOT_HERE
        if not allowed(header("authorization").encode("latin-1", "replace"), self._token):
            return UNKNOWN
        wanted, zipped = formatted(header("accept")), gzips(header("accept-encoding"))
        try:
            body = self._scrapes.answer(wanted, zipped=zipped)
        except Exception:  # noqa: BLE001 - counted by Scrapes; whatever a collector raises, the answer is 500
            return FAILED
        return Answer(200, body, wanted.content_type, zipped)

    def controlled(
        self, method: str, path: str, header: Callable[[str], str], body: bytes
    ) -> Answer | None:
        """What a request to `/logging` gets; None for another path, or where nothing is logged. Never raises."""
        if self._logging is None or path.partition("?")[0] != LOGGING_PATH:
            return None
        try:
            return self._logging.answer(method, header("authorization"), body)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an answer, and counted
            self._failed("logs", error)
            return BROKEN

    def failed(self, error: BaseException) -> None:
        """A fault of a connection is counted."""
        self._failed("exposition", error)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: AdminPort, address: tuple[str, int], *, shared: bool) -> None:
        self.owner = port
        self._shared = shared
        self._seats = BoundedSemaphore(_AT_ONCE)
        self._since: dict[socket.socket, float] = {}
        super().__init__(address, _Caller)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._shared:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # HTTPServer would ask a name server for this machine's name.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The caller still waits in the queue: asked again at once, it would cost a whole core.
                sleep(_POLL_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._seats.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._since[request] = monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started
            self._leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        self._since.pop(request, None)
        self._seats.release()

    def service_actions(self) -> None:
        # A caller's own time-out starts anew with each byte.
        now = monotonic()
        for request, since in tuple(self._since.items()):
            if now - since > _CALLER_S and self._since.pop(request, None) is not None:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # a caller may hang up
            self.owner.failed(error)


class _Caller(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CALLER_S
    server_version = "taskscope"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_PUT(self) -> None:
        self._change()

    def do_DELETE(self) -> None:
        self._change()

    def _answer(self, *, body: bool) -> None:
        owner = self.server.owner
        answer = owner.controlled(self.command, self.path, self._header, b"")
        self._send(answer or owner.answer(self.path, self._header), body=body)

    def _change(self) -> None:
        size = self._header("content-length")
        given = self.rfile.read(min(int(size), MOST_BYTES + 1)) if size.isdecimal() else b""
        answer = self.server.owner.controlled(self.command, self.path, self._header, given)
        self._send(answer or REFUSED, body=True)

    def _header(self, name: str) -> str:
        found: str = self.headers.get(name, "")
        return found

    def _send(self, answer: Answer, *, body: bool) -> None:
        self.send_response(answer.status)
        for name, value in headers_of(answer):
            self.send_header(name.decode(), value.decode("latin-1"))
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are not worth a line."""
