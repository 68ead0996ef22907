"""The whole stack: made ready, run, recorded, stopped. `up` is the command, `running_stack` the same for a test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import psutil

from taskscope.errors import EngineError
from taskscope_ui.stack import state
from taskscope_ui.stack.configs import Targets, forget_rules, target_files, text_of
from taskscope_ui.stack.credentials import Credentials
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.logfiles import last_words, log_path
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Phase, Status
from taskscope_ui.stack.plan import Plan, plan
from taskscope_ui.stack.ports import Reserved, choose
from taskscope_ui.stack.supervise import Supervisor

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Stack", "running_stack", "up"]

_POLL_S: Final = 0.05
_BROKEN: Final = (Phase.FAILED, Phase.DOWN)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """A stack that runs: what it consists of, where it answers, how far each part has come."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        *,
        leftovers: tuple[str, ...],
        changed: Callable[[Status], None],
        release: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.leftovers = leftovers
        self._changed = changed
        self._targets = Targets(
            layout.folder / "prometheus",
            target_files(text_of(layout.prometheus_config)),
        )
        self._started: dict[int, float] = {}
        self.supervisor = Supervisor(
            plan.parts, logs=layout.logs, on_change=self._on_change, release=release
        )

    @property
    def folder(self) -> Path:
        """The stack's own folder."""
        return self.layout.folder

    def address(self, name: str) -> str:
        """Where the part answers; `api` is the front door. Raises EngineError for a part without an address."""
        try:
            return self.plan.addresses[name]
        except KeyError:
            known = ", ".join(sorted(self.plan.addresses))
            raise EngineError(f"{name} has no address in this stack; take one of {known}") from None

    def status(self, name: str) -> Status:
        """How far the part has come. Raises EngineError for a part that this stack has not."""
        if self.plan.part(name) is None:
            known = ", ".join(part.name for part in self.plan.parts)
            raise EngineError(f"there is no part {name} in this stack; the parts are {known}")
        return self.supervisor.status(name)

    async def ready(self, *names: str, within_s: float = 60.0) -> None:
        """The parts are ready, all of them when none is named.

        Raises EngineError as soon as one has failed, or when time is up.
        """
        wanted = names or tuple(part.name for part in self.plan.parts)
        with anyio.move_on_after(within_s):
            while waiting := [name for name in wanted if not self.status(name).phase.good]:
                for name in waiting:
                    if (found := self.status(name)).phase.settled:
                        raise EngineError(
                            f"{name} is {found.phase.value}: {found.detail}; mend that"
                        )
                await anyio.sleep(_POLL_S)
            return
        said = "; ".join(f"{name} is {self._at(name)}" for name in waiting)
        raise EngineError(f"{said}, after {within_s:g} s; see the logs in {self.layout.logs}")

    def _at(self, name: str) -> str:
        words = last_words(log_path(self.layout.logs, name), "")
        return f"{self.status(name).phase.value} ({words or 'it wrote nothing'})"

    def record(self) -> None:
        """The state file says how things are now."""
        state.write(
            self.folder,
            state.StackState(
                **state.of_this_process(),
                project=str(self.layout.project),
                traffic_control=str(self.layout.traffic_control),
                spool=str(self.layout.spool),
                addresses=dict(self.plan.addresses),
                parts=(*self._records(), *self._absent_records()),
            ),
        )

    def _records(self) -> list[state.PartRecord]:
        records = []
        for part in self.plan.parts:
            status = self.supervisor.status(part.name)
            stop_signal, grace_s = self.supervisor.manners(part.name)
            records.append(
                state.PartRecord(
                    name=part.name,
                    what=part.what,
                    phase=status.phase.value,
                    detail=status.detail,
                    pid=status.pid,
                    began=status.began,
                    started=self._wall(status.pid),
                    url=part.address,
                    port=part.port,
                    log=str(log_path(self.layout.logs, part.name)),
                    stop_signal=stop_signal,
                    grace_s=grace_s,
                )
            )
        return records

    def _absent_records(self) -> list[state.PartRecord]:
        return [
            state.PartRecord(
                name=lacking.name,
                what=lacking.what,
                phase="absent",
                detail=lacking.why,
                remedy=lacking.remedy,
            )
            for lacking in self.plan.absent
        ]

    def _wall(self, pid: int) -> float:
        if pid and pid not in self._started:
            with suppress(psutil.Error):
                self._started[pid] = psutil.Process(pid).create_time()
        return self._started.get(pid, 0.0)

    def _on_change(self, status: Status) -> None:
        part = self.plan.part(status.name)
        # A full disk must not end what runs well; `taskscope doctor` names the disk.
        with suppress(EngineError):
            if part is not None and status.pid and status.phase is Phase.STARTING:
                self._targets.add(part.scraped)
            self.record()
        self._changed(status)


@asynccontextmanager
async def running_stack(
    options: UpOptions,
    *,
    engines: Engines | None = None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_change: Callable[[Status], None] = lambda _: None,
) -> AsyncIterator[Stack]:
    """The stack runs inside the block, its parts coming up; after it no process and no port of it is left.

    Raises EngineError before anything starts: for a folder in use, a port in use, configuration that lacks.
    """
    layout = Layout(folder=options.folder.absolute(), project=options.project.absolute())
    layout.check()
    with ExitStack() as held:
        held.enter_context(state.hold(layout.folder))
        layout.make()
        leftovers = state.clear_leftovers(layout.folder)
        ports = choose(options.ports, usual=options.usual_ports)
        reserved = held.enter_context(Reserved(ports.values()))
        made = plan(
            options,
            layout=layout,
            ports=ports,
            credentials=Credentials.load(layout.secrets),
            engines=engines or Engines(),
        )
        on_plan(made)
        forget_rules(layout.folder / "prometheus")
        stack = Stack(
            made, layout, leftovers=leftovers, changed=on_change, release=reserved.release
        )
        stack.record()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stack.supervisor.run)
            try:
                yield stack
            finally:
                tasks.cancel_scope.cancel()


def up(options: UpOptions, *, console: Console | None = None) -> int:
    """The stack has run until it was stopped, or for `options.duration_s`; the exit code is 0.

    Raises EngineError before anything starts when it cannot run as asked, and after all was stopped when a
    part had failed.
    """
    from rich.console import Console

    return anyio.run(_up, options, console or Console())


async def _up(options: UpOptions, console: Console) -> int:
    from taskscope_ui.stack.display import Display

    display = Display(console)
    # Open until all is stopped: a second Ctrl-C must not cut the stopping short and leave something behind.
    with anyio.open_signal_receiver(*_SIGNALS) as signals, display:
        async with running_stack(
            options, on_plan=display.planned, on_change=display.changed
        ) as stack:
            display.began(stack.leftovers)
            with anyio.move_on_after(options.duration_s or float("inf")):
                async for _ in signals:
                    break
            display.stopping()
            broken = [p.name for p in stack.plan.parts if stack.status(p.name).phase in _BROKEN]
    if broken:
        raise EngineError(
            f"{' and '.join(broken)} did not run to the end; see the logs in {stack.layout.logs}"
        )
    return 0
