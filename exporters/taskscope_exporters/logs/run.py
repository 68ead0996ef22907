"""`taskscope ship`: one shipper per spool folder, with its own /metrics, until it is told to stop.

The audit lines, in a spool of their own inside of the folder, have a shipper beside it, into a stream of their own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.errors import SettingsError
from taskscope_exporters.logs.auditing import AuditShipping
from taskscope_exporters.logs.client import hushed
from taskscope_exporters.logs.lock import SHIPPER_THREAD, FolderLock
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Say, Shipper, ShipperMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["run", "to_stderr"]

_LOOPBACK: Final = "127.0.0.1"
_GRACE_S: Final = 5.0


def to_stderr(sentence: str) -> None:
    """The sentence stands on standard error."""
    sys.stderr.write(f"taskscope ship: {sentence}\n")
    sys.stderr.flush()


def run(
    settings: ShipSettings,
    *,
    catalogue: Catalogue,
    stop: threading.Event,
    port: int | None,
    address: str = _LOOPBACK,
    say: Say = to_stderr,
    patience_s: float | None = None,
    lock: FolderLock | None = None,
    waits_silent: bool = False,
) -> None:
    """Ships the service's lines until `stop` is set, then at most 5 s longer; what is left waits on disk.

    A second shipper of the same folder waits and takes over when the first ends. port, address: where its series are
    served under /metrics, or None. say: told one sentence at each change of state.
    patience_s: how long Elasticsearch may take to be well at first; None waits for ever.
    lock: that of the folder, if the caller has opened it; it is closed in any case. waits_silent: the port is taken
    only once the folder is ours, for processes that share one.
    Raises SettingsError if the folder or the port cannot be used, Trouble when patience has ended.
    """
    if settings.in_the_clear:
        say(f"{settings.url} is not encrypted and a login crosses the network; write https:")
    lock = FolderLock(settings.spool) if lock is None else lock
    try:
        metrics = ShipperMetrics(catalogue, settings)
        early, late = (None, port) if waits_silent else (port, None)
        with _served(metrics.registry, early, address), hushed():
            if lock.acquire(stop, say):
                with _served(metrics.registry, late, address):
                    shipper = Shipper(
                        settings=settings,
                        catalogue=catalogue,
                        metrics=metrics,
                        stop=stop,
                        say=say,
                        patience_s=patience_s,
                    )
                    audit = AuditShipping(settings, catalogue=catalogue, metrics=metrics, say=say)
                    _until_stopped(shipper, audit, stop)
                    if shipper.lost is not None:
                        raise shipper.lost
    finally:
        lock.close()


def _until_stopped(shipper: Shipper, audit: AuditShipping, stop: threading.Event) -> None:
    # A thread of its own, because a request under way cannot be broken off; its lines keep their ids for the next.
    thread = threading.Thread(target=shipper.run, name=SHIPPER_THREAD, daemon=True)
    thread.start()
    audit.start()
    while thread.is_alive() and not stop.wait(0.5):
        pass
    end = time.monotonic() + _GRACE_S
    audit.stop.set()
    for each in (thread, audit.thread):
        each.join(max(0.0, end - time.monotonic()))


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
