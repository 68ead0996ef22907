"""The shipper of the audit lines, beside that of the service's own: the same one, over another folder and stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope_exporters.logs.lock import SHIPPER_THREAD
from taskscope_exporters.logs.metrics import ShipperMetrics
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Shipper
from taskscope_exporters.logs.template import audit_spool, stream_name

__all__ = ["AuditShipping"]

_LOOK_S: Final = 0.5


class AuditShipping:
    """Ships the audit spool inside of a spool, once there is one, in a thread of its own until `stop` is set.

    Whoever makes it holds the lock of the spool around it, which is the audit lines' too.
    """

    def __init__(
        self,
        settings: ShipSettings,
        *,
        catalogue: Catalogue,
        metrics: ShipperMetrics,
        say: Callable[[str], None],
    ) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=self._run, name=f"{SHIPPER_THREAD}-audit", daemon=True
        )
        self._folder = audit_spool(settings.spool)
        self._shipper = Shipper(
            settings=replace(settings, spool=self._folder),
            catalogue=catalogue,
            metrics=metrics.of_audit(),
            stop=self.stop,
            say=lambda sentence: say(f"audit: {sentence}"),
            stream=stream_name(catalogue.service, settings.environment, audit=True),
        )

    def start(self) -> None:
        """The thread runs."""
        self.thread.start()

    def _run(self) -> None:
        while not self._is_there() and not self.stop.wait(_LOOK_S):
            pass
        if self._is_there():  # lines of a service's last moment are shipped as well
            self._shipper.run()

    def _is_there(self) -> bool:
        return self._folder.is_dir() and not self._folder.is_symlink()
