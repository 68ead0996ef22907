"""An exception as a line tells it: what it is, the trace as text, and its frames as a list that can be searched.

Bounded whatever it holds: a chain of causes, a group of groups, a recursion a thousand frames deep. An exception
whose own text fails is told all the same.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from types import FrameType, TracebackType
from typing import Final, TypeAlias, cast
from uuid import UUID

import msgspec

from taskscope.redaction import Plain

__all__ = ["ExcInfo", "Teller", "exception_of", "frames_of", "said", "stack_of"]

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
Document: TypeAlias = dict[str, Plain]

_MOST_ERRORS: Final = 8
_MOST_FRAMES: Final = 40
_MOST_STEPS: Final = 10_000
_INNER: Final = 12
_MOST_LOCALS: Final = 16
_FILE_CHARS: Final = 120
_NAME_CHARS: Final = 80
_MESSAGE_CHARS: Final = 200
_LOCAL_CHARS: Final = 200
_LOCALS_CHARS: Final = 6_000
_SIMPLE: Final = (str, bytes, bool, int, float, Decimal, UUID, date, time, timedelta)
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
_UNREADABLE: Final = "[unreadable]"


def exception_of(found: object) -> ExcInfo | None:
    """What `exc_info=` stands for: an exception, a triple of them, or true for the one being handled."""
    if isinstance(found, BaseException):
        return type(found), found, found.__traceback__
    current = found if isinstance(found, tuple) and len(found) == 3 else None
    if current is None and found:
        current = sys.exc_info()
    if current is None or not isinstance(current[1], BaseException):
        return None
    return cast("ExcInfo", current)


def stack_of(exc_info: ExcInfo) -> str:
    """The trace as Python prints it, without local variables: those hold what nobody meant to log. Never raises."""
    try:
        return "".join(traceback.TracebackException(*exc_info, capture_locals=False).format())
    except Exception:  # noqa: BLE001 # an exception's own text may fail
        return _UNREADABLE


@dataclass(slots=True, kw_only=True)
class Teller:
    """What makes texts and values of one line safe.

    text: of a name or a message. local: of a variable, by its name; None leaves all of them out. room: characters
    that variables may still take.
    """

    text: Callable[[str], str]
    local: Callable[[str, object], Plain] | None = None
    room: int = _LOCALS_CHARS


def frames_of(exc_info: ExcInfo, teller: Teller) -> list[Plain]:
    """The exception, what caused it and the members of groups, each with its frames; the exception itself is first.

    how: `raised`, `cause` (from `raise … from`), `context` (while another was handled) or `member` of a group;
    of: the place in the list of the one that it belongs to. frames: innermost last, `file`, `line`, `function`, and
    `locals` where the teller has them. At most 8 exceptions and 40 frames in all. Never raises.
    """
    told: list[Plain] = []
    room = _MOST_FRAMES
    for error, trace_back, how, of in _family(exc_info):
        frames, left_out = _frames(trace_back, room, teller)
        room -= len(frames)
        kind = type(error)
        entry: Document = {
            "type": teller.text(f"{kind.__module__}.{kind.__qualname__}"[: 2 * _NAME_CHARS]),
            "message": teller.text(said(error))[:_MESSAGE_CHARS],
            "how": how,
            "frames": frames,
        }
        if of is not None:
            entry["of"] = of
        if left_out:
            entry["frames_left_out"] = left_out
        told.append(entry)
    return told


def _family(
    exc_info: ExcInfo,
) -> Iterator[tuple[BaseException, TracebackType | None, str, int | None]]:
    """Breadth first, each exception once: a cause may lead back to where it came from."""
    waiting: list[tuple[BaseException, TracebackType | None, str, int | None]] = [
        (exc_info[1], exc_info[2], "raised", None)
    ]
    seen: set[int] = set()
    place = 0
    while waiting and place < _MOST_ERRORS:
        error, trace_back, how, of = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error, trace_back, how, of
        if error.__cause__ is not None:
            waiting.append((error.__cause__, error.__cause__.__traceback__, "cause", place))
        elif error.__context__ is not None and not error.__suppress_context__:
            waiting.append((error.__context__, error.__context__.__traceback__, "context", place))
        if isinstance(error, BaseExceptionGroup):
            members = error.exceptions[:_MOST_ERRORS]
            waiting += [(each, each.__traceback__, "member", place) for each in members]
        place += 1


def _frames(trace_back: TracebackType | None, room: int, teller: Teller) -> tuple[list[Plain], int]:
    """The outermost frames and more of the innermost, where there are too many."""
    walked: list[tuple[FrameType, int]] = []
    while trace_back is not None and len(walked) < _MOST_STEPS:
        walked.append((trace_back.tb_frame, trace_back.tb_lineno))
        trace_back = trace_back.tb_next
    left_out = max(0, len(walked) - room)
    if left_out:
        outer = room // 3
        inner = room - outer
        walked = walked[:outer] + (walked[-inner:] if inner else [])
    first_with_locals = len(walked) - _INNER
    return [
        _frame(frame, line, teller, with_locals=place >= first_with_locals)
        for place, (frame, line) in enumerate(walked)
    ], left_out


def _frame(frame: FrameType, line: int, teller: Teller, *, with_locals: bool) -> Plain:
    code = frame.f_code
    told: Document = {
        "file": teller.text(code.co_filename[-_FILE_CHARS:]),
        "line": line,
        "function": teller.text(code.co_qualname[:_NAME_CHARS]),
    }
    if teller.local is not None and with_locals:
        told["locals"] = _locals(frame, teller, teller.local)
    return told


def _locals(frame: FrameType, teller: Teller, local: Callable[[str, object], Plain]) -> Document:
    found: Document = {}
    for name, value in frame.f_locals.items():
        if len(found) >= _MOST_LOCALS or teller.room <= 0:
            break
        if not name.startswith("__"):
            # Made safe before it is cut: the cut may go through a secret.
            text = _told(local(name, _plain(value)))[:_LOCAL_CHARS]
            teller.room -= len(text) + len(name)
            found[name[:_NAME_CHARS]] = text
    return found


def _plain(value: object) -> object:
    """Simple values and containers; of an object its kind, for it may stand for the whole application."""
    if value is None or isinstance(value, _SIMPLE) or type(value) in _CONTAINERS:
        return value
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _told(plain: Plain) -> str:
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def said(error: BaseException) -> str:
    """The exception's text. Never raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 # an exception's own text may fail
        return _UNREADABLE
