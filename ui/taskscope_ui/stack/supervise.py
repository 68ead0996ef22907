"""Starts the parts of a stack as soon as what they need is there, watches them, and ends them all.

A part that dies stays dead and is shown so: a stack on a developer's machine must not hide a crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import Process

from taskscope.errors import EngineError
from taskscope.testing.engines import guard
from taskscope.testing.engines.launch import is_ready, prepare, process_options
from taskscope.testing.engines.spec import Spec
from taskscope_ui.stack.logfiles import fresh, last_words, log_path
from taskscope_ui.stack.part import Part, Phase, Status
from taskscope_ui.stack.processes import Group, began, end_groups, holder, listens, members

__all__ = ["Supervisor", "stop_order"]

_POLL_S: Final = 0.1
_SILENT: Final = "it wrote nothing"


class Supervisor:
    """Runs `parts`; `on_change` hears of every step of each, in the event loop's thread.

    release: told the port of a part just before it starts, by whoever kept it free until then.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        logs: Path,
        on_change: Callable[[Status], None],
        release: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._parts = {part.name: part for part in parts}
        self._logs = logs
        self._on_change = on_change
        self._release = release
        self._statuses = {name: Status(name=name) for name in self._parts}
        self._settled = {name: anyio.Event() for name in self._parts}
        self._specs: dict[str, Spec] = {}
        self._processes: dict[str, Process] = {}

    def status(self, name: str) -> Status:
        """How far the part has come."""
        return self._statuses[name]

    def manners(self, name: str) -> tuple[int, float]:
        """How the part is asked to end: the signal, and the seconds it is given."""
        spec = self._specs.get(name)
        return (int(spec.stop_signal), spec.stop_grace_s) if spec else (int(signal.SIGTERM), 10.0)

    async def run(self) -> None:
        """Every part has ended; until then they run. Cancel it to stop the stack: nothing is left then."""
        try:
            async with anyio.create_task_group() as tasks:
                for part in self._parts.values():
                    tasks.start_soon(self._drive, part)
        finally:
            with CancelScope(shield=True):
                await self._end_all()

    async def _drive(self, part: Part) -> None:
        if not await self._may_start(part):
            return
        self._set(part, Phase.STARTING)
        start = anyio.current_time()
        try:
            process = await self._launch(part)
        except EngineError as error:
            self._set(part, Phase.FAILED, detail=str(error).removeprefix(f"{part.name}: "))
            return
        fault = await self._came_up(part, process)
        if fault:
            await self._end([part])
            self._set(part, Phase.FAILED, detail=fault)
            return
        phase = Phase.DONE if part.step else Phase.READY
        self._set(part, phase, took_s=anyio.current_time() - start)
        if part.step:
            await self._end([part])
            return
        code = await process.wait()
        await self._end([part])  # what the part had started must not outlive it
        self._set(part, Phase.DOWN, detail=self._ended(part, code))

    async def _may_start(self, part: Part) -> bool:
        for name in (*part.needs, *part.after):
            if not self._statuses[name].phase.settled:
                self._set(part, Phase.WAITING, detail=f"waits for {name}")
            await self._settled[name].wait()
        lacking = [name for name in part.needs if not self._statuses[name].phase.good]
        if lacking:
            self._set(part, Phase.FAILED, detail=f"not started, as {' and '.join(lacking)} failed")
        return not lacking

    async def _launch(self, part: Part) -> Process:
        # Shielded, so that a process never exists that `_processes` does not know.
        with CancelScope(shield=True):
            spec = await to_thread.run_sync(part.spec)
            self._specs[part.name] = spec
            self._release(part.port)
            await to_thread.run_sync(prepare, spec)
            log = self._fresh_log(part)
            try:
                process = await anyio.open_process(
                    spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **process_options(spec),
                )
            except OSError as error:
                raise EngineError(
                    f"{part.name}: {spec.argv[0]}: {error.strerror}; install it anew"
                ) from error
            finally:
                os.close(log)
            self._processes[part.name] = process
            guard.watch(process.pid)
            self._set(part, Phase.STARTING, pid=process.pid, began=began(process.pid))
        return process

    def _fresh_log(self, part: Part) -> int:
        path = log_path(self._logs, part.name)
        try:
            return fresh(path)
        except OSError as error:
            raise EngineError(
                f"{part.name}: {path} cannot be written: {error.strerror}; free the disk, or remove it"
            ) from error

    async def _came_up(self, part: Part, process: Process) -> str:
        """Why the part is not ready, or the step not done; "" once it is."""
        spec = self._specs[part.name]
        with anyio.move_on_after(spec.start_timeout_s):
            if part.step:
                code = await process.wait()
                return self._ended(part, code) if code else ""
            return await self._answers(part, process)
        words = last_words(log_path(self._logs, part.name), spec.complaint)
        what = "done" if part.step else "ready"
        return f"not {what} after {spec.start_timeout_s:g} s: {words or _SILENT}"

    async def _answers(self, part: Part, process: Process) -> str:
        log, sign = log_path(self._logs, part.name), self._specs[part.name].ready
        while True:
            ready = await to_thread.run_sync(is_ready, sign, log, abandon_on_cancel=True)
            # Asked after the probe: on a port that another server took, that one would have answered.
            if process.returncode is not None:
                return self._ended(part, process.returncode)
            if ready:
                return await to_thread.run_sync(self._usurped, part)
            await anyio.sleep(_POLL_S)

    def _usurped(self, part: Part) -> str:
        """Who answers in the part's place, on a port that was free when it was chosen; "" if the part does."""
        group = self._group(part)
        for port in self._specs[part.name].ports[:1]:
            if not listens(group, port) and members(group):
                return f"port {port} is answered by {holder(port)}; free it or give another with --ports"
        return ""

    def _group(self, part: Part) -> Group:
        status = self._statuses[part.name]
        stop_signal, grace_s = self.manners(part.name)
        return Group(pid=status.pid, began=status.began, stop_signal=stop_signal, grace_s=grace_s)

    def _ended(self, part: Part, code: int) -> str:
        meaning = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        words = last_words(log_path(self._logs, part.name), self._specs[part.name].complaint)
        return f"ended with {meaning}: {words or _SILENT}"

    async def _end_all(self) -> None:
        for parts in stop_order(list(self._parts.values())):
            await self._end(parts)
            for part in parts:
                phase = self._statuses[part.name].phase
                if phase in (Phase.WAITING, Phase.STARTING, Phase.READY):
                    self._set(part, Phase.STOPPED)

    async def _end(self, parts: Sequence[Part]) -> None:
        """Nothing of `parts` runs any more."""
        running = [part for part in parts if part.name in self._processes]
        groups = [self._group(part) for part in running]
        with CancelScope(shield=True):
            await to_thread.run_sync(end_groups, groups)
            for part in running:
                process = self._processes.pop(part.name)
                await process.wait()
                guard.release(process.pid)

    def _set(
        self,
        part: Part,
        phase: Phase,
        *,
        detail: str = "",
        pid: int | None = None,
        began: int | None = None,
        took_s: float | None = None,
    ) -> None:
        before = self._statuses[part.name]
        status = Status(
            name=part.name,
            phase=phase,
            detail=detail,
            pid=before.pid if pid is None else pid,
            began=before.began if began is None else began,
            took_s=before.took_s if took_s is None else took_s,
        )
        self._statuses[part.name] = status
        if phase.settled:
            self._settled[part.name].set()
        self._on_change(status)


def stop_order(parts: Sequence[Part]) -> list[list[Part]]:
    """`parts` in the order of stopping: each group only after all that need its parts have gone."""
    named = {part.name: part for part in parts}
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            part = named[name]
            depths[name] = 1 + max((depth(n) for n in (*part.needs, *part.after)), default=0)
        return depths[name]

    groups: dict[int, list[Part]] = {}
    for part in parts:
        groups.setdefault(depth(part.name), []).append(part)
    return [groups[level] for level in sorted(groups, reverse=True)]
