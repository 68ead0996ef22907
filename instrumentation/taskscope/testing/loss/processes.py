"""A process of a cell: started in a session of its own, killed or ended by its id, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskscope.testing.engines import guard
from taskscope.testing.waiting import until

__all__ = ["Process"]

_END_S = 30.0


class Process:
    """A running command. What it writes is in the file `said`."""

    def __init__(self, words: Sequence[str], *, environ: Mapping[str, str], said: Path) -> None:
        self.said = said
        with said.open("ab") as output:
            self._process = subprocess.Popen(
                [*words],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        guard.watch(self.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """It was ended at once, by SIGKILL."""
        self._process.kill()
        self._reap()

    def ask(self) -> None:
        """It was told to end, by SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """It was told to end and has; after half a minute it was killed."""
        self.ask()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def ended(self, *, within_s: float) -> int:
        """Its exit code, once it ended by itself. Raises AssertionError if it has not in time; then it was killed."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise AssertionError(f"{self.said.name} does not end: {self.text()[-300:]}") from error
        finally:
            self._reap()

    def text(self) -> str:
        """What it wrote until now."""
        return self.said.read_text(errors="replace")

    def says(self, words: str, *, within_s: float) -> None:
        """It has written `words`. Raises AssertionError with its last words if it has not in time."""
        until(
            lambda: words in self.text(),
            within_s=within_s,
            saying=f"{words!r} is said; {self.said.name} ends with {self.text()[-300:]!r}",
        )

    def _reap(self) -> None:
        self._process.wait(_END_S)
        guard.release(self.pid)
