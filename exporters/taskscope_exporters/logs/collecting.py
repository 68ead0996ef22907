"""`taskscope collect-logs`: one collector per stream, with its /metrics, until it is told to stop."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.errors import SettingsError
from taskscope_exporters.logs.client import hushed
from taskscope_exporters.logs.collected import CollectorMetrics
from taskscope_exporters.logs.collector import Collector
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import stream_name

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["CollectSettings", "collect"]

_LOOPBACK: Final = "127.0.0.1"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK_S: Final = 0.5
_GRACE_S: Final = 5.0
_LEAST_S: Final = 1.0
_MOST_S: Final = 300.0
_STALE_LOOKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSettings:
    """Where lines are counted, where the counts are kept over a restart, and how often. Raises SettingsError.

    every_s: seconds from one look to the next, 1 to 300; not less than Prometheus' scrape interval, or a new series'
    first 0 is never scraped.
    """

    elasticsearch: ShipSettings = field(default_factory=ShipSettings)
    folder: Path = Path(".taskscope/collector")
    every_s: float = 15.0

    def __post_init__(self) -> None:
        if not _LEAST_S <= self.every_s <= _MOST_S:
            raise SettingsError(
                f"every {self.every_s:g} s is no pause between looks; give {_LEAST_S:g} to {_MOST_S:g} seconds"
            )

    @property
    def stale_s(self) -> float:
        """After so long without a good look the counts are not shown."""
        return _STALE_LOOKS * self.every_s + 2 * self.elasticsearch.timeout_s

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> CollectSettings:
        """As for the shipper, and COLLECTOR_FOLDER for the folder. Raises SettingsError naming each fault."""
        settings = ShipSettings.from_environ(environ)
        folder = environ.get("COLLECTOR_FOLDER", "").strip()
        own = cls(elasticsearch=settings)
        return replace(own, folder=Path(folder)) if folder else own


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"taskscope collect-logs: {sentence}\n")
    sys.stderr.flush()


def collect(
    settings: CollectSettings,
    *,
    catalogue: Catalogue,
    stop: threading.Event,
    port: int | None,
    address: str = _LOOPBACK,
    say: Callable[[str], None] = _to_stderr,
) -> None:
    """Counts the stream's lines until `stop` is set; what comes meanwhile is counted at the next start.

    A second collector of the same folder waits and takes over when the first ends. port, address: where its series
    are served under /metrics, or None. say: told one sentence at each change of state.
    Raises SettingsError if the folder or the port cannot be used.
    """
    server = settings.elasticsearch
    if server.in_the_clear:
        say(f"{server.url} is not encrypted and a login crosses the network; write https:")
    stream = stream_name(catalogue.service, server.environment)
    lock = _open_lock(settings.folder, stream)
    try:
        metrics = CollectorMetrics(catalogue, stale_s=settings.stale_s)
        collector = Collector(
            settings=server,
            catalogue=catalogue,
            metrics=metrics,
            file=settings.folder / f"{stream}.json",
            stop=stop,
            say=say,
            every_s=settings.every_s,
        )
        with _served(metrics.registry, port, address), hushed():
            if _locked(lock, stop, settings.folder, say):
                _until_stopped(collector, stop)
    finally:
        os.close(lock)


def _until_stopped(collector: Collector, stop: threading.Event) -> None:
    # A thread of its own, because a request under way cannot be broken off; what it counted is then counted again.
    thread = threading.Thread(target=collector.run, name="taskscope-collect", daemon=True)
    thread.start()
    stop.wait()
    thread.join(_GRACE_S)


def _open_lock(folder: Path, stream: str) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / f"{stream}.lock", _FLAGS, 0o600)
    except OSError as error:
        raise SettingsError(
            f"folder {folder} for the counts cannot be used: {error.strerror}; set COLLECTOR_FOLDER to one that "
            "this user may write"
        ) from error


def _locked(lock: int, stop: threading.Event, folder: Path, say: Callable[[str], None]) -> bool:
    """Whether the folder's counts are ours; waits for another collector's end, or for `stop`."""
    told = False
    while not stop.is_set():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"another collector works in {folder}; this one waits to take over")
                told = True
            stop.wait(_LOOK_S)
        else:
            return True
    return False


@contextmanager
def _served(registry: CollectorRegistry, port: int | None, address: str) -> Iterator[None]:
    if port is None:
        yield
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise SettingsError(
            f"port {port} on {address} cannot be used for the collector's metrics: {error.strerror}; name another"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_GRACE_S)
