"""`taskscope logs tail -f`: lines as they come, until Ctrl-C or until nobody reads them any more."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from taskscope_ui.commands.logs_options import now_us

if TYPE_CHECKING:
    from taskscope_exporters.logs.reading.conditions import Query
    from taskscope_exporters.logs.reading.follow import Follower
    from taskscope_exporters.logs.reading.reader import Reader
    from taskscope_ui.commands.logs_screen import Screen

__all__ = ["followed"]

_LOOK_S: Final = 0.25
_ASK_S: Final = 1.0
_ASK_AGAIN_S: Final = 5.0


def followed(reader: Reader, query: Query, limit: int, screen: Screen) -> int:
    """Shows lines until Ctrl-C, or until nobody reads them any more."""
    mark = reader.marked()
    try:
        began = now_us()
        shown = reader.newest(query, limit)
        screen.lines(shown)
        # Of the lines before now only those are missing that were left out for the limit.
        oldest = shown[0].at if shown and len(shown) == limit else query.since if limit else began
        query = replace(query, since=max(query.since, oldest))
        follower = reader.follower(query, shown, mark)
        try:
            _pump(follower, screen)
        finally:
            follower.close()
    except KeyboardInterrupt:
        pass
    return 0


def _pump(follower: Follower, screen: Screen) -> None:
    from taskscope_exporters.logs.reading.source import ReadError
    from taskscope_ui.commands.logs_screen import note

    ask_at = 0.0
    lost = ""
    while screen.wait(_LOOK_S):
        lines = follower.from_spool()
        if lines:
            screen.lines(lines)
        if time.monotonic() < ask_at:
            continue
        try:
            lines = follower.from_server(now=now_us())
        except ReadError as error:
            if str(error) != lost:
                note(f"{error}; what comes meanwhile is shown when it answers again")
            lost = str(error)
            ask_at = time.monotonic() + _ASK_AGAIN_S
            continue
        if lost:
            note("Elasticsearch answers again")
            lost = ""
        if lines:
            screen.lines(lines)
        ask_at = time.monotonic() + _ASK_S
