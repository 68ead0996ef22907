"""A process that logs numbered lines at a steady rate and keeps a record of its own of what became of each.

    TASKSCOPE_SPOOL=DIR python -m taskscope.testing.loss.writer --name a --records DIR --service NAME --rate 2000

It runs until SIGTERM. A number is recorded after its line was answered as stored, by a write that outlives the process:
what the record names must arrive, whoever dies.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from time import monotonic, sleep
from types import FrameType

from taskscope.logs import configure, get_logger
from taskscope.settings import Settings
from taskscope.testing.loss.outcome import DROPPED, END, STORED, number

_LOOK_S = 0.01
_WARNING_EVERY = 20


class _Keeper:
    """Where the pipeline tells what became of the line that is under way in this thread."""

    def __init__(self, records: Path, name: str) -> None:
        self.attempts = 0
        self._thread = threading.get_ident()
        self._reason: str | None = ""
        self._stored = _opened(records / f"{name}{STORED}")
        self._dropped = _opened(records / f"{name}{DROPPED}")
        self._end = records / f"{name}{END}"

    def on_line(self, _level: str) -> None:
        if threading.get_ident() == self._thread:
            self._reason = None

    def on_drop(self, reason: str, _level: str = "") -> None:
        if threading.get_ident() == self._thread:
            self._reason = reason

    def attempt(self) -> int:
        self._reason = "unanswered"
        self.attempts += 1
        return self.attempts - 1

    def keep(self, n: int) -> None:
        if self._reason is None:
            os.write(self._stored, number(n))
        else:
            os.write(self._dropped, f"{n} {self._reason}\n".encode())

    def ended(self) -> None:
        self._end.write_text(f"{self.attempts}\n")


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def main() -> None:
    """Logs until SIGTERM; then everything is recorded and the pipeline closed."""
    parser = argparse.ArgumentParser(description="Logs numbered lines and records their fate.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--rate", type=float, required=True, help="lines a second")
    parser.add_argument(
        "--odd-every", type=int, default=0, help="each such line has a text in event.action"
    )
    asked = parser.parse_args()
    stopping: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        stopping.append(signum)

    signal.signal(signal.SIGTERM, stop)
    keeper = _Keeper(asked.records, asked.name)
    pipeline = configure(
        settings=Settings.from_environ(os.environ),
        service_name=asked.service,
        service_version="1",
        on_line=keeper.on_line,
        on_drop=keeper.on_drop,
        on_error=lambda _error: None,
    )
    log = get_logger("loss")
    began = monotonic()
    while not stopping:
        due = int((monotonic() - began) * asked.rate)
        while keeper.attempts < due and not stopping:
            n = keeper.attempt()
            tell = log.info if n % _WARNING_EVERY else log.warning
            odd = (
                {"event.action": "of no number"}
                if asked.odd_every and n % asked.odd_every == 0
                else {}
            )
            tell(
                "line written",
                writer=asked.name,
                seq=n,
                queue="mail",
                wait_s=0.25,
                attempt=1,
                **odd,
            )
            keeper.keep(n)
        sleep(_LOOK_S)
    pipeline.close()
    keeper.ended()


if __name__ == "__main__":
    main()
