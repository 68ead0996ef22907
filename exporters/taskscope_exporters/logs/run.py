"""`taskscope ship`: one shipper per spool folder, with its own /metrics, until it is told to stop."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.errors import SettingsError
from taskscope_exporters.logs.client import hushed
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Say, Shipper, ShipperMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["run"]

_LOOPBACK: Final = "127.0.0.1"
_LOCK_NAME: Final = "shipper.lock"
_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK_LOOK_S: Final = 0.5
_GRACE_S: Final = 5.0


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"taskscope ship: {sentence}\n")
    sys.stderr.flush()


def run(
    settings: ShipSettings,
    *,
    catalogue: Catalogue,
    stop: threading.Event,
    port: int | None,
    address: str = _LOOPBACK,
    say: Say = _to_stderr,
    patience_s: float | None = None,
) -> None:
    """Ships the service's lines until `stop` is set, then at most 5 s longer; what is left waits on disk.

    A second shipper of the same folder waits and takes over when the first ends. port, address: where its series are
    served under /metrics, or None. say: told one sentence at each change of state.
    patience_s: how long Elasticsearch may take to be well at first; None waits for ever.
    Raises SettingsError if the folder or the port cannot be used, Trouble when patience has ended.
    """
    if settings.in_the_clear:
        say(f"{settings.url} is not encrypted and a login crosses the network; write https:")
    lock = _open_lock(settings.spool)
    try:
        metrics = ShipperMetrics(catalogue, settings)
        with _served(metrics.registry, port, address), hushed():
            if _locked(lock, stop, settings, say):
                shipper = Shipper(
                    settings=settings,
                    catalogue=catalogue,
                    metrics=metrics,
                    stop=stop,
                    say=say,
                    patience_s=patience_s,
                )
                _until_stopped(shipper, stop)
                if shipper.lost is not None:
                    raise shipper.lost
    finally:
        os.close(lock)


def _until_stopped(shipper: Shipper, stop: threading.Event) -> None:
    # A thread of its own, because a request under way cannot be broken off; its lines keep their ids for the next.
    thread = threading.Thread(target=shipper.run, name="taskscope-ship", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.wait(0.5):
        pass
    thread.join(_GRACE_S)


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / _LOCK_NAME, _LOCK_FLAGS, 0o600)
    except OSError as error:
        raise SettingsError(
            f"spool {folder} cannot be used: {error.strerror}; set TASKSCOPE_SPOOL to the folder that the service "
            "writes to, and run as its user"
        ) from error


def _locked(lock: int, stop: threading.Event, settings: ShipSettings, say: Say) -> bool:
    """Whether the folder is ours; waits for another shipper's end, or for `stop`."""
    told = False
    while not stop.is_set():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"another shipper works in {settings.spool}; this one waits to take over")
                told = True
            stop.wait(_LOCK_LOOK_S)
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
            f"port {port} on {address} cannot be used for the shipper's metrics: {error.strerror}; name another"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_GRACE_S)
