"""Which pipeline takes what is logged here and now: exactly one, however many a process has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskscope.context import current_request

if TYPE_CHECKING:
    from taskscope.logs.pipeline import LogPipeline

__all__ = ["RECEIVERS", "Receivers"]


class Receivers:
    """The pipelines that are open, in the order in which they were set up.

    only: the one there is; None where there is none, or several.
    """

    __slots__ = ("_open", "only")

    def __init__(self) -> None:
        self._open: tuple[LogPipeline, ...] = ()
        self.only: LogPipeline | None = None

    def add(self, pipeline: LogPipeline) -> None:
        """The pipeline takes lines; of one that does already nothing changes."""
        if pipeline not in self._open:
            self._are((*self._open, pipeline))

    def remove(self, pipeline: LogPipeline) -> None:
        """The pipeline takes no lines any more."""
        self._are(tuple(each for each in self._open if each is not pipeline))

    def current(self) -> LogPipeline | None:
        """The pipeline of the application that serves the running request; outside of one the last that was set up."""
        found = self._open
        if len(found) < 2:
            return found[0] if found else None
        request = current_request.get()
        owner = request.logs if request is not None else None
        return next((each for each in found if each is owner), found[-1])

    def failed(self, error: BaseException) -> None:
        """An exception that was kept from whoever logged is told to the pipeline that was set up last. Never raises."""
        for pipeline in self._open[-1:]:
            pipeline.failed(error)

    def _are(self, pipelines: tuple[LogPipeline, ...]) -> None:
        self._open = pipelines
        self.only = pipelines[0] if len(pipelines) == 1 else None


RECEIVERS: Final = Receivers()
"""Those of this process: what logs is found everywhere, and so must be what takes it."""
