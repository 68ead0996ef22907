"""A proxy on loopback that delays, throttles, swallows, refuses and cuts: for tests of what a network does."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Final, Self

__all__ = ["TcpProxy", "reset"]

_CHUNK: Final = 65_536
_THROTTLED_CHUNK: Final = 2048
_CONNECTIONS: Final = 256
_JOIN_S: Final = 5.0


class _Mode(Enum):
    PASS = "pass"  # noqa: S105 # bytes pass, no secret
    LATENCY = "latency"
    RATE = "rate"
    BLACKHOLE = "blackhole"
    REFUSE = "refuse"
    HALF = "half"
    RESET_AFTER = "reset_after"


@dataclass(slots=True, kw_only=True, eq=False)
class _Link:
    """One client's connection and ours to the server.

    tainted: bytes of it were swallowed, so that it cannot go on. ended: how many of its two directions did.
    gone: it was reset.
    """

    client: socket.socket
    server: socket.socket
    tainted: bool = False
    ended: int = 0
    gone: bool = False

    def reset(self) -> None:
        self.gone = True
        reset(self.client)
        reset(self.server)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """What is done to bytes now; amount, jitter: seconds, bytes a second or bytes, as the mode says."""

    mode: _Mode = _Mode.PASS
    amount: float = 0.0
    jitter: float = 0.0


@dataclass(slots=True, kw_only=True)
class TcpProxy:
    """Inside its block `port` leads to `to_port` of this machine, as well or as badly as it was told last.

    to_port: may be changed while it runs, and holds for connections made after that. rng: spreads latencies.
    counts: connections, resets, and the bytes `up` (to the server) and `down`.
    """

    to_port: int
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 # chance of a test
    counts: Counter[str] = field(default_factory=Counter)
    _fault: _Fault = field(default_factory=_Fault)
    _links: set[_Link] = field(default_factory=set)
    _threads: set[threading.Thread] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The same as an address of HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.cut()
        with self._lock:
            threads = [*self._threads]
        for thread in threads:
            thread.join(_JOIN_S)
        self._listener.close()

    def heal(self) -> None:
        """Bytes pass again; connections of which some were swallowed are reset."""
        self._become(_Fault())
        with self._lock:
            tainted = [link for link in self._links if link.tainted]
        self._reset(tainted)

    def latency(self, seconds: float, *, jitter_s: float = 0.0) -> None:
        """Every piece comes so much later, in both directions, by up to `jitter_s` more or less."""
        self._become(_Fault(mode=_Mode.LATENCY, amount=seconds, jitter=jitter_s))

    def rate(self, bytes_per_s: float) -> None:
        """Each direction of a connection carries so many bytes a second."""
        self._become(_Fault(mode=_Mode.RATE, amount=bytes_per_s))

    def blackhole(self) -> None:
        """Connections are accepted and nothing ever comes of them."""
        self._become(_Fault(mode=_Mode.BLACKHOLE))

    def half(self) -> None:
        """The server gets every request and its answers vanish: the client cannot know."""
        self._become(_Fault(mode=_Mode.HALF))

    def refuse(self) -> None:
        """Connections, the open ones too, are reset at once."""
        self._become(_Fault(mode=_Mode.REFUSE))
        self.cut()

    def reset_after(self, answered: int) -> None:
        """A connection is reset once it has carried so many bytes of answers: half an answer arrives."""
        self._become(_Fault(mode=_Mode.RESET_AFTER, amount=answered))

    def cut(self) -> None:
        """The open connections are reset, once; new ones pass as before."""
        with self._lock:
            links = [*self._links]
        self._reset(links)

    def _become(self, fault: _Fault) -> None:
        self._fault = fault

    def _reset(self, links: list[_Link]) -> None:
        for link in links:
            self.counts["resets"] += 1
            link.reset()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(
            target=self._run, args=(work,), name="faultproxy-tcp", daemon=True
        )
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        with suppress(OSError):  # a peer hung up, or we did
            work()
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _accept(self) -> None:
        while not self._closing.is_set():
            client, _ = self._listener.accept()
            self.counts["connections"] += 1
            if self._fault.mode is _Mode.REFUSE or len(self._links) >= _CONNECTIONS:
                self.counts["resets"] += 1
                reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.to_port), timeout=_JOIN_S)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            link = _Link(client=client, server=server)
            with self._lock:
                self._links.add(link)
            self._start(partial(self._pump, link, client, server, "up"))
            self._start(partial(self._pump, link, server, client, "down"))

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            whole = self._carry(link, source, sink, way)
        except OSError:
            whole = False
        with self._lock:
            link.ended += 1
            over = link.ended == 2 or not whole
        if not whole:
            link.reset()
        elif over:
            link.close()
        if over:
            with self._lock:
                self._links.discard(link)

    def _carry(self, link: _Link, source: socket.socket, sink: socket.socket, way: str) -> bool:
        """Whether the source came to its end and the sink was told so; raises OSError where one is gone."""
        carried = 0
        while piece := source.recv(self._piece()):
            carried += len(piece)
            self.counts[way] += len(piece)
            fault = self._fault
            if fault.mode is _Mode.BLACKHOLE or (fault.mode is _Mode.HALF and way == "down"):
                link.tainted = True
            elif _reset_due(fault, way, carried):
                sink.sendall(piece[: max(0, len(piece) - carried + int(fault.amount))])
                self.counts["resets"] += 1
                return False
            else:
                self._hold(fault, len(piece))
                sink.sendall(piece)
        if link.gone:
            return False
        if link.tainted:
            return way == "down"  # a client that waits in vain does not learn that the server ended
        sink.shutdown(socket.SHUT_WR)
        return True

    def _piece(self) -> int:
        return _THROTTLED_CHUNK if self._fault.mode is _Mode.RATE else _CHUNK

    def _hold(self, fault: _Fault, size: int) -> None:
        if fault.mode is _Mode.LATENCY:
            spread = self.rng.uniform(-fault.jitter, fault.jitter)
            self._closing.wait(max(0.0, fault.amount + spread))
        elif fault.mode is _Mode.RATE:
            self._closing.wait(size / fault.amount)


def _reset_due(fault: _Fault, way: str, carried: int) -> bool:
    return fault.mode is _Mode.RESET_AFTER and way == "down" and carried > fault.amount


def reset(connection: socket.socket) -> None:
    """The connection is gone and its peer is told by a reset, not by an end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes a thread that reads it
    connection.close()
