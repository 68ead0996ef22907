"""What nobody caught is a line too: in the main program, in threads, in event loops and in finalisers.

What Python would have done, printing it and ending the process say, is done all the same.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

from taskscope.logs.exceptions import ExcInfo

__all__ = ["UncaughtRoute"]

_LOGGER: Final = "taskscope.uncaught"
_NAME_CHARS: Final = 80
# These end a program as they were meant to; Python gives no trace of the first either.
_ENDINGS: Final = (SystemExit, KeyboardInterrupt)
_PYTHONS: Final = (sys.__excepthook__, threading.__excepthook__, sys.__unraisablehook__)


class _Log(Protocol):
    def __call__(
        self, level: str, logger: str, event: object, message: object, fields: dict[str, object]
    ) -> None: ...


class UncaughtRoute:
    """Python's hooks for exceptions that nobody caught lead into `log` as well, from `install` to `remove`.

    receives: whether this pipeline takes what is logged here and now. failed: told of what was kept from the hooks'
    callers.
    """

    def __init__(
        self,
        log: _Log,
        *,
        receives: Callable[[], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._log = log
        self._receives = receives
        self._failed = failed
        self._before: tuple[Any, Any, Any] | None = None
        self._under_way: set[tuple[int | None, int]] = set()
        self._loops: list[tuple[asyncio.AbstractEventLoop, Any]] = []

    def install(self) -> None:
        """The hooks lead here; the event loop that runs, if one does, has its exceptions told as well."""
        if self._before is None:
            self._before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
            sys.excepthook = self._in_program
            threading.excepthook = self._in_thread
            sys.unraisablehook = self._unraisable
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._watch(loop)

    def remove(self) -> None:
        """The hooks are those that were found, unless somebody has set others since."""
        if self._before is not None:
            program, thread, unraisable = self._before
            self._before = None
            if sys.excepthook == self._in_program:
                sys.excepthook = program
            if threading.excepthook == self._in_thread:
                threading.excepthook = thread
            if sys.unraisablehook == self._unraisable:
                sys.unraisablehook = unraisable
        for loop, handler in self._loops:
            if getattr(loop.get_exception_handler(), "__self__", None) is self:
                loop.set_exception_handler(handler)
        self._loops.clear()

    def follow(self, level: int) -> None:
        """What nobody caught is never below the level that somebody reads."""

    def mend(self) -> None:
        """Who sets another hook means to have it."""

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        handler = loop.get_exception_handler()
        # asyncio's own handler logs the error with the standard library, which leads here anyway.
        if handler is None or any(each is loop for each, _ in self._loops):
            return
        self._loops.append((loop, handler))
        loop.set_exception_handler(self._in_loop)

    def _in_program(
        self, kind: type[BaseException], error: BaseException, trace_back: TracebackType | None
    ) -> None:
        if not issubclass(kind, _ENDINGS):
            self._tell("critical", "uncaught exception", (kind, error, trace_back), place=0)
        self._pass_on(0, kind, error, trace_back)

    def _in_thread(self, found: threading.ExceptHookArgs) -> None:
        error = found.exc_value
        if error is not None and not issubclass(found.exc_type, _ENDINGS):
            name = "" if found.thread is None else found.thread.name[:_NAME_CHARS]
            self._tell(
                "error",
                "uncaught exception in a thread",
                (found.exc_type, error, found.exc_traceback),
                place=1,
                **{"process.thread.name": name},
            )
        self._pass_on(1, found)

    def _unraisable(self, found: Any) -> None:
        error = found.exc_value
        if error is not None:
            self._tell(
                "error",
                "exception that could not be raised",
                (found.exc_type, error, found.exc_traceback),
                place=2,
                within=_named(found.object),
                said=found.err_msg,
            )
        self._pass_on(2, found)

    def _in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        exc_info = None
        if isinstance(error, BaseException):
            exc_info = (type(error), error, error.__traceback__)
        self._tell(
            "error", "exception in the event loop", exc_info, said=str(context.get("message", ""))
        )
        former = next((handler for each, handler in self._loops if each is loop), None)
        if former is not None:
            former(loop, context)

    def _tell(
        self,
        level: str,
        message: str,
        exc_info: ExcInfo | None,
        *,
        place: int | None = None,
        **fields: object,
    ) -> None:
        try:
            # The hooks of several pipelines may lead back to one another.
            if self._receives() and (place, threading.get_ident()) not in self._under_way:
                if exc_info is not None:
                    fields["exc_info"] = exc_info
                self._log(level, _LOGGER, message, message, fields)
        except Exception as error:  # noqa: BLE001 # the hook that was there before is called all the same
            self._failed(error)

    def _pass_on(self, place: int, *found: Any) -> None:
        """The hook that was found is called: Python's own where there is none, or where that one leads back here."""
        call = (place, threading.get_ident())
        former: Callable[..., object] = _PYTHONS[place]
        if self._before is None or call in self._under_way:
            former(*found)
            return
        former = self._before[place]
        self._under_way.add(call)
        try:
            former(*found)
        finally:
            self._under_way.discard(call)


def _named(thing: object) -> str:
    """What a finaliser belongs to, by its kind: its own text may fail, or keep it alive."""
    name = getattr(thing, "__qualname__", None)
    return str(name if isinstance(name, str) else type(thing).__qualname__)[:_NAME_CHARS]
