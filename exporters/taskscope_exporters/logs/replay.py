"""Sends dead letters again, after whatever was wrong has been mended: those that are stored now are letters no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskscope.errors import SettingsError
from taskscope_exporters.logs.bulk import send
from taskscope_exporters.logs.client import connect, hushed
from taskscope_exporters.logs.deadletters import (
    Letter,
    only_replay,
    put_back,
    read_letters,
    take,
)
from taskscope_exporters.logs.lookup import LookUp
from taskscope_exporters.logs.portions import Named
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.template import stream_name

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Replayed", "replay"]

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of the dead letters. known: were stored already, by an earlier replay that was killed.

    left: by the server's kind of error, those that still cannot be stored. strange: lines of the file that are none.
    """

    stored: int = 0
    known: int = 0
    left: tuple[tuple[str, int], ...] = ()
    strange: int = 0


def replay(
    settings: ShipSettings,
    *,
    service: str,
    stream: str | None = None,
    now: Callable[[], float] = time.time,
    say: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """The folder's dead letters were sent again under their ids; those that were refused lie there as before.

    It may run beside a shipper, and be killed at any moment: nothing is lost, and what was stored is not stored again.
    stream: where to, by default the service's own. say: told once when the key for look-ups cannot be used.
    Raises Trouble if the server cannot be reached or does not take lines at all, and SettingsError if the folder
    cannot be used or another replay is at work; then what was not stored lies there still.
    """
    folder = settings.spool
    try:
        with only_replay(folder) as alone:
            if not alone:
                raise SettingsError(
                    f"another replay is at work in {folder}; wait for its end, then ask again"
                )
            taken = take(folder)
            if taken is None:
                return Replayed()
            stream = stream or stream_name(service, settings.environment)
            look_up = LookUp(settings=settings, stream=stream, say=say)
            return _replayed(settings, look_up, taken, now)
    except OSError as error:
        raise SettingsError(
            f"the dead letters in {folder} cannot be read or written: {error.strerror}; run as the shipper's user and "
            "free the disk"
        ) from error


def _replayed(
    settings: ShipSettings, look_up: LookUp, taken: Path, now: Callable[[], float]
) -> Replayed:
    letters, strange = read_letters(taken)
    round_ = _Round(settings=settings, look_up=look_up, waiting=letters)
    try:
        with hushed(), connect(settings) as client, closing(round_.look_up):
            while round_.waiting:
                round_.send_some(client)
    finally:
        put_back(taken.parent, [*round_.left, *round_.waiting], strange, now=now())
    kinds = [letter.kind for letter in round_.left]
    return Replayed(
        stored=round_.stored,
        known=round_.known,
        left=tuple(sorted((kind, kinds.count(kind)) for kind in {*kinds})),
        strange=len(strange),
    )


@dataclass(slots=True, kw_only=True)
class _Round:
    """Letters on their way. waiting: not sent yet, or to be sent again."""

    settings: ShipSettings
    look_up: LookUp
    waiting: Sequence[Letter]
    left: tuple[Letter, ...] = ()
    stored: int = 0
    known: int = 0

    def send_some(self, client: Elasticsearch) -> None:
        """Some letters fewer wait, or Trouble is raised and those that were not stored wait still."""
        part, rest = self.waiting[:_AT_ONCE], self.waiting[_AT_ONCE:]
        fresh = self._not_stored(client, part)
        self.known += len(part) - len(fresh)
        self.waiting = [*fresh, *rest]
        if not fresh:
            return
        outcome = send(
            client,
            self.settings,
            self.look_up.stream,
            Named(lines=[letter.line for letter in fresh]),
        )
        self.stored += outcome.stored
        self.known += outcome.duplicates
        self.left += tuple(
            Letter(line=fresh[dead.place].line, kind=dead.kind, reason=dead.reason)
            for dead in outcome.dead
        )
        again = [fresh[place] for place in outcome.again]
        self.waiting = [*again, *rest]
        if outcome.refusal is not None:
            raise outcome.refusal

    def _not_stored(self, client: Elasticsearch, letters: Sequence[Letter]) -> Sequence[Letter]:
        """Those that no backing index has, as far as the login may ask; the others were stored by an earlier replay."""
        lines = Named(lines=[letter.line for letter in letters])
        places = self.look_up.missing(client, lines)
        return letters if places is None else [letters[place] for place in places]
