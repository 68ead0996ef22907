"""The sum of all workers, as any one of them answers it, and the care of the folder that they share."""

from __future__ import annotations

import logging
import os
import secrets
import time
import weakref
from array import array
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from taskscope.catalogue import Metric
from taskscope.errors import MultiprocessError
from taskscope.metrics.store import Exemplar, Reading
from taskscope.multiprocess import files
from taskscope.multiprocess.arranging import Metrics, arrange
from taskscope.multiprocess.folding import fold_dead
from taskscope.multiprocess.layout import BadFileError
from taskscope.multiprocess.merging import Plan, Source, latest, newest_first, readings, total
from taskscope.multiprocess.reading import Fault, FolderReader, Moment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Collected", "WorkerFolder", "collect"]

_MAX_SEEN: Final = 1_024
_MAX_NAMED: Final = 10
_log = logging.getLogger(__name__)

OnError = Callable[[str, BaseException | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One answer.

    workers: processes that live, gunicorn's main one included where it loads the app (`--preload`).
    skipped: names and reasons of files left out that no process of the service has reported before.
    """

    readings: list[Reading]
    workers: int
    skipped: tuple[tuple[str, str], ...]


class _Base(NamedTuple):
    cells: array[float]
    exemplars: dict[int, Exemplar]


class WorkerFolder:
    """Reads and tidies the folder of one service's workers; keep it, for it remembers what it parsed.

    Counters and histograms are summed over workers that live, that died, and the fold, also one of an earlier run
    of the service in the same folder, so that they never fall; gauges are of those that live, as `Metric.across`
    says. A metric that this process does not know is shown all the same. Where versions of the service differ
    about a metric, the youngest live worker that has it decides, in every process alike.
    known: this process's metrics, in the order in which they are shown. failed: told of a fold that failed.
    Thread safe. A worker that stands still keeps nobody waiting: reading needs no lock, and folding waits for none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        service: str,
        known: Iterable[Metric] = (),
        failed: OnError | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder = folder.absolute()
        self._service = service
        self._failed = failed
        self._now = now
        self._lock = Lock()
        self._metrics = Metrics({metric.name: metric for metric in known})
        self._reader = FolderReader(service)
        self._plan: tuple[object, Plan, _Base] | None = None
        self._faults: dict[str, Fault] = {}
        self._open: int | None = None
        os.register_at_fork(after_in_child=_Forked(self))

    def collect(self, *, exemplars: bool = True) -> Collected:
        """The sum as it is now; dead workers are in the fold afterwards, unless another process is folding.

        Raises MultiprocessError if the folder is gone, or no longer ours alone, or no more files can be opened: a
        sum without some of the workers would be a wrong one.
        """
        with self._lock, self._opened() as folder:
            moment, torn = self._tidied(folder, exemplars)
            sources = newest_first(moment.sources)
            plan, base = self._arranged(sources)
            counting = [source for source in sources if not source.is_fold]
            cells = total(base.cells, zip(plan.runs, (s.cells for s in counting), strict=False))
            found = latest(plan.runs, counting, base.exemplars) if exemplars else {}
            faults = torn | moment.faults
            for number in plan.outdated:
                if not sources[number].is_fold:
                    faults[sources[number].name] = Fault("version", "")
            return Collected(
                readings=readings(plan, cells, found),
                workers=sum(source.live for source in sources),
                skipped=self._news(folder, faults),
            )

    def fold(self) -> None:
        """Dead workers are in the fold, unless another process is folding. Raises MultiprocessError as collect."""
        with self._lock, self._opened() as folder:
            self._tidied(folder, exemplars=True)

    def forked(self) -> None:
        """In a forked child: nothing is left of what another thread of the parent was about."""
        self._lock = Lock()
        inherited, self._open = self._open, None
        if inherited is not None:
            os.close(inherited)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        self._open = folder = files.open_folder(self._folder)
        try:
            yield folder
        finally:
            self._open = None
            os.close(folder)

    def _tidied(self, folder: int, exemplars: bool) -> tuple[Moment, dict[str, Fault]]:
        """The folder as it is, dead workers folded; and what was left out of them."""
        torn: dict[str, Fault] = {}
        if self._reader.needs_care(folder):
            with files.try_exclusive(folder) as alone:
                if alone:
                    torn = self._fold_all(folder)
        return self._reader.moment(folder, exemplars=exemplars), torn

    def _fold_all(self, folder: int) -> dict[str, Fault]:
        """What was left out of the dead, who are in the fold afterwards; a batch at a time."""
        torn: dict[str, Fault] = {}
        try:
            while True:
                dead = self._reader.dead(folder)
                torn |= dead.faults
                if not fold_dead(folder, self._service, dead, self._metrics, now=self._now):
                    break
        except OSError as error:
            if self._failed is not None:
                self._failed("multiprocess", error)
        return torn

    def _arranged(self, sources: list[Source]) -> tuple[Plan, _Base]:
        """The plan, and what of the whole never changes: the fold, which is the last source if there is one."""
        state = tuple((source.id, source.live, len(source.entries)) for source in sources)
        if self._plan is None or self._plan[0] != state:
            plan = arrange(sources, self._metrics)
            self._metrics.forget_all_but(plan)
            base = _Base(plan.start, {})
            if sources and sources[-1].is_fold:
                base = _Base(
                    total(plan.start, [(plan.runs[-1], sources[-1].cells)]),
                    latest(plan.runs[-1:], sources[-1:], {}),
                )
            self._plan = (state, plan, base)
        return self._plan[1], self._plan[2]

    def _news(self, folder: int, faults: dict[str, Fault]) -> tuple[tuple[str, str], ...]:
        """Faults that no process of the service has reported, which are reported from now on."""
        if faults == self._faults:
            return ()
        with files.try_exclusive(folder) as alone:
            if not alone:
                return ()
            seen = self._seen(folder)
            shown = {ascii(name)[1:-1]: fault for name, fault in faults.items()}
            known = {ascii(name)[1:-1]: fault for name, fault in self._faults.items()}
            new = {
                name: fault
                for name, fault in shown.items()
                if fault not in (seen.get(name), known.get(name))
            }
            if shown != seen:
                self._remember(folder, dict(list(shown.items())[:_MAX_SEEN]))
        self._faults = faults
        if new:
            named = [f"{name} ({fault.reason})" for name, fault in list(new.items())[:_MAX_NAMED]]
            _log.warning(
                "%d files in the workers' folder %s are left out: %s",
                len(new),
                self._folder,
                ", ".join(named),
            )
        return tuple((name, fault.reason) for name, fault in new.items())

    def _seen(self, folder: int) -> dict[str, Fault]:
        try:
            with files.opened(folder, files.skipped_name(self._service)) as (file, _):
                return msgspec.json.decode(os.pread(file, 1 << 20, 0), type=dict[str, Fault])
        except (OSError, BadFileError, MultiprocessError, msgspec.MsgspecError):
            return {}

    def _remember(self, folder: int, faults: dict[str, Fault]) -> None:
        draft = files.draft_name(self._service, secrets.token_bytes(16))
        name = files.skipped_name(self._service)
        try:
            content = msgspec.json.encode(faults)
            files.put(folder, draft=draft, name=name, content=content, durable=False)
        except OSError as error:
            if self._failed is not None:
                self._failed("multiprocess", error)


class _Forked:
    """What a fork calls in the child, which keeps no folder alive."""

    def __init__(self, folder: WorkerFolder) -> None:
        self._folder = weakref.ref(folder)

    def __call__(self) -> None:
        folder = self._folder()
        if folder is not None:
            folder.forked()


def collect(folder: Path, *, service: str, known: Iterable[Metric] = ()) -> Collected:
    """The sum of all workers, read once; whoever asks again keeps a WorkerFolder."""
    return WorkerFolder(folder, service=service, known=known).collect()
