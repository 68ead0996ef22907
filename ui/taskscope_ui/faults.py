"""Faults on demand: what `taskscope fault` is told, and the file by which the running traffic hears of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taskscope.errors import EngineError, TaskscopeError

__all__ = ["FaultError", "Faults", "begin_with", "parse", "tell"]


class FaultError(TaskscopeError):
    """For whoever plants a fault: it cannot be read, or there is no traffic that could have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Shares of the requests, from 0 to 1: those that end in a server error, and those half a second slower."""

    errors: float = 0.0
    slow: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return self.errors > 0 or self.slow > 0

    def __str__(self) -> str:
        return f"{self.errors:.1%} errors and {self.slow:.1%} slow requests"


def parse(words: Sequence[str]) -> Faults:
    """The faults that `errors=0.5 slow=0.1` asks for; `clear` asks for none. Raises FaultError."""
    if list(words) == ["clear"]:
        return Faults()
    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in ("errors", "slow"):
            raise FaultError(
                f"fault {word!r} is unknown; write errors=SHARE, slow=SHARE, or clear alone"
            )
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise FaultError(f"fault {word!r}: the share is not from 0 to 1; write {name}=0.5")
        found[name] = share
    return Faults(**found)


def begin_with(folder: Path, faults: Faults) -> None:
    """The next stack in `folder` starts with these faults; those that an earlier one ended with are forgotten.

    A stack that runs there is left as it is. Raises TaskscopeError where the folder cannot be used.
    """
    from taskscope_ui.stack import state
    from taskscope_ui.stack.credentials import private_folder
    from taskscope_ui.stack.layout import Layout

    try:
        before = state.read(folder)
    except EngineError:
        before = None  # what cannot be read must not keep the next start from running
    if before is not None and before.runs:
        return
    path = Layout(folder=folder.absolute(), project=folder).traffic_control
    if not faults.any and not path.parent.exists():
        return
    private_folder(folder.absolute())
    private_folder(path.parent)
    with suppress(FileNotFoundError, IsADirectoryError):
        path.unlink()
    if faults.any:
        _write(path, faults)


def tell(folder: Path, faults: Faults) -> None:
    """The traffic of the stack in `folder` has these faults from its next requests on. Raises FaultError."""
    from taskscope_ui.stack import state

    stack = state.read(folder)
    if stack is None or not stack.runs:
        raise FaultError(
            f"{folder}: no stack runs there; run `taskscope up`, or name its folder with --folder"
        )
    traffic = stack.part("traffic")
    if traffic is None or not traffic.runs:
        raise FaultError(
            f"{folder}: the stack runs without traffic; start it without --no-traffic, or see `taskscope doctor`"
        )
    _write(Path(stack.traffic_control), faults)


def _write(path: Path, faults: Faults) -> None:
    beside = path.with_suffix(".new")
    text = json.dumps({"errors": faults.errors, "slow": faults.slow})
    try:
        beside.write_text(f"{text}\n", encoding="utf-8")
        beside.chmod(0o600)
        beside.replace(path)  # the traffic reads it each second, so it is whole at every moment
    except OSError as error:
        raise FaultError(
            f"{path}: {error.strerror}; run as the owner of the stack's folder"
        ) from error
