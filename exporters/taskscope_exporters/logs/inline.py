"""The shipper inside of the service: no process of its own to run, where one is one too many.

Of the service's workers one ships and the others wait; when it dies, another takes over within a second. It runs in a
thread of its own and shares the worker's processor, so a service under high load is better off with `taskscope ship`.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taskscope.errors import SettingsError
from taskscope.logs.segments import pending
from taskscope_exporters.logs.lock import SHIPPER_THREAD, FolderLock
from taskscope_exporters.logs.run import run, to_stderr
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import audit_spool

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskscope.catalogue import Catalogue
    from taskscope.telemetry import Telemetry

__all__ = ["BackgroundShipper", "ship_in_background"]

_LOOK_S: Final = 0.02
_LEAST_S: Final = 0.5


def ship_in_background(
    telemetry: Telemetry,
    settings: ShipSettings | None = None,
    *,
    port: int | None = None,
    say: Callable[[str], None] = to_stderr,
) -> BackgroundShipper:
    """The service's own process ships its lines from now on, or waits to, until the value is closed.

    Call it when the app starts, in each worker. settings: by default read from the environment, and nothing is
    shipped unless `ELASTICSEARCH_SHIP` is `inline`; the spool and the environment are the telemetry's. port: of the
    loopback, where the worker that ships serves the shipper's series. say: told one sentence at each change of state.
    Raises SettingsError for a wrong environment, a folder that cannot be used, or where the client is not installed.
    """
    asked = settings is not None
    if settings is None:
        settings = ShipSettings.from_environ(os.environ)
        asked = settings.inline
    own = replace(
        settings, spool=telemetry.settings.spool, environment=telemetry.settings.environment
    )
    shipper = BackgroundShipper(own, catalogue=telemetry.catalogue, port=port, say=say)
    if asked:
        shipper.start()
    return shipper


class BackgroundShipper:
    """A shipper in a thread of this process; `close` it when the service ends, or use it as a context.

    What it cannot do it says, and the service goes on: the lines wait on disk.
    """

    def __init__(
        self,
        settings: ShipSettings,
        *,
        catalogue: Catalogue,
        port: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._port = port
        self._say = say
        self._stop = threading.Event()
        self._lock: FolderLock | None = None
        self._thread: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        """Whether this process is the one that ships."""
        return self._lock is not None and self._lock.held

    def start(self) -> None:
        """The thread runs; the second call does nothing. Raises SettingsError as `ship_in_background`."""
        if self._thread is not None:
            return
        if importlib.util.find_spec("elasticsearch") is None:
            raise SettingsError(
                "ELASTICSEARCH_SHIP: elasticsearch is not installed; run: pip install 'taskscope[exporters]'"
            )
        self._lock = FolderLock(self._settings.spool)
        self._thread = threading.Thread(
            target=self._run, args=(self._lock,), name=f"{SHIPPER_THREAD}-leader", daemon=True
        )
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """What this process's spool holds is shipped, or so many seconds have passed; the rest waits on disk.

        One that does not lead ends at once. The second call does nothing.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        end = time.monotonic() + timeout_s
        while self.leads and time.monotonic() < end - min(_LEAST_S, timeout_s / 4):
            if not any(map(_waits, (self._settings.spool, audit_spool(self._settings.spool)))):
                break
            time.sleep(_LOOK_S)
        self._stop.set()
        thread.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> BackgroundShipper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, lock: FolderLock) -> None:
        try:
            self._ship(lock, self._port)
        except SettingsError as error:
            # The port; without its series the lines are shipped all the same.
            self._say(f"{error}; shipping goes on without its series")
            if not self._stop.is_set():
                self._ship(FolderLock(self._settings.spool), None)

    def _ship(self, lock: FolderLock, port: int | None) -> None:
        self._lock = lock
        run(
            self._settings,
            catalogue=self._catalogue,
            stop=self._stop,
            port=port,
            say=self._say,
            lock=lock,
            waits_silent=True,
        )


def _waits(folder: Path) -> bool:
    return pending(folder, now=time.time()).bytes > 0
