"""What whoever ran `taskscope up` sees: a table that moves on a terminal, lines as they come in a pipe."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from taskscope_ui.stack.part import Part, Phase, Status
from taskscope_ui.stack.plan import Plan

__all__ = ["Display", "described"]

_COLOURS: Final = {
    Phase.WAITING: "dim",
    Phase.STARTING: "yellow",
    Phase.READY: "green",
    Phase.DONE: "green",
    Phase.FAILED: "red",
    Phase.DOWN: "red bold",
    Phase.STOPPED: "dim",
}
_PER_SECOND: Final = 4
_GOODBYE: Final = (
    "Ctrl-C stops all of it",
    "In a second terminal: `taskscope doctor` says what is wrong, `taskscope fault errors=0.5` makes half fail",
)


def described(status: Status) -> str:
    """How far a part has come, in words."""
    match status.phase:
        case Phase.READY | Phase.DONE:
            return f"{status.phase.value} in {status.took_s:.1f} s"
        case Phase.FAILED | Phase.DOWN:
            return f"{status.phase.value}: {status.detail}"
        case _:
            return status.detail or status.phase.value


class Display:
    """Shows each part's state as it comes up, then where each is opened. Nothing is shown before `planned`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: Plan | None = None
        self._statuses: dict[str, Status] = {}
        self._since: dict[str, float] = {}
        self._announced = False
        self._stopping = False
        self._live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, plan: Plan) -> None:
        """The parts are known: the table stands, or the absent are named."""
        self._plan = plan
        self._statuses = {part.name: Status(name=part.name) for part in plan.parts}
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._drawn,
                console=self._console,
                refresh_per_second=_PER_SECOND,
                transient=False,
            )
            self._live.start()
            return
        for lacking in plan.absent:
            if lacking.remedy:
                self._say(f"{lacking.name}: {lacking.why}; run: {lacking.remedy}")

    def began(self, leftovers: tuple[str, ...]) -> None:
        """What an earlier start had left behind is named; it has been ended."""
        if leftovers:
            self._say(f"ended what an earlier start had left: {', '.join(leftovers)}")

    def changed(self, status: Status) -> None:
        """The new state is shown."""
        before = self._statuses.get(status.name)
        self._statuses[status.name] = status
        if status.phase is Phase.STARTING:
            self._since.setdefault(status.name, time.monotonic())
        if self._live is None and (before is None or before.phase is not status.phase):
            self._tell(status)
        if not self._announced and self._foreground_settled():
            self._announced = True
            if self._live is None:
                self._announce()

    def stopping(self) -> None:
        """It is said that all parts are being stopped."""
        self._stopping = True
        self._say("stopping")

    def _tell(self, status: Status) -> None:
        if status.phase not in (Phase.READY, Phase.DONE, Phase.FAILED, Phase.DOWN):
            return
        address = self._address(status.name) if status.phase is Phase.READY else ""
        self._say(f"{status.name}: {described(status)}{f'  {address}' if address else ''}")

    def _say(self, text: str) -> None:
        """A line, where no table stands."""
        # A reader of the pipe that went away, or a terminal that was closed, must not end the stack half way.
        # SystemExit is rich's word for a broken pipe.
        with suppress(OSError, SystemExit):
            if self._live is None:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _foreground_settled(self) -> bool:
        parts = self._plan.parts if self._plan else ()
        return all(self._statuses[part.name].phase.settled for part in parts if not part.background)

    def _address(self, name: str) -> str:
        part = self._plan.part(name) if self._plan else None
        return part.address if part else ""

    def _drawn(self) -> Group:
        parts = self._plan.parts if self._plan else ()
        table = Table(box=SIMPLE_HEAD)
        table.add_column("part", style="cyan", no_wrap=True)
        table.add_column("state", overflow="fold")
        table.add_column("address", no_wrap=True)
        for part in parts:
            table.add_row(*self._row(part))
        for lacking in self._plan.absent if self._plan else ():
            if lacking.remedy:
                words = escape(f"{lacking.why}; run: {lacking.remedy}")
                table.add_row(lacking.name, f"[yellow]{words}[/]", "")
        if self._stopping:
            return Group(table, "stopping; nothing is left behind")
        if self._announced:
            return Group(table, self._addresses(), *_GOODBYE)
        return Group(table)

    def _row(self, part: Part) -> tuple[str, str, str]:
        status = self._statuses[part.name]
        words = described(status)
        if status.phase is Phase.STARTING and part.name in self._since:
            words = f"starting, {time.monotonic() - self._since[part.name]:.0f} s"
        shown = part.address if status.phase is Phase.READY else ""
        return part.name, f"[{_COLOURS[status.phase]}]{escape(words)}[/]", shown

    def _doors(self) -> list[tuple[str, str, str]]:
        """What a person opens: what it is, its address, and a word where it is not there yet."""
        rows = []
        for part in self._plan.parts if self._plan else ():
            phase = self._statuses[part.name].phase
            if part.address and part.door and (phase.good or not phase.settled):
                rows.append((part.what, part.address, "" if phase.good else "comes up later"))
        return rows

    def _addresses(self) -> Table:
        table = Table(box=SIMPLE_HEAD, title="Open", title_justify="left", title_style="bold")
        table.add_column("what", style="cyan")
        table.add_column("address", no_wrap=True)
        table.add_column(style="dim")
        for row in self._doors():
            table.add_row(*row)
        return table

    def _announce(self) -> None:
        rows = self._doors()
        width = max((len(what) for what, _, _ in rows), default=0)
        for what, address, word in rows:
            self._say(f"  {what.ljust(width)}  {address}  {word}".rstrip())
        for line in _GOODBYE:
            self._say(line)
