"""Lines out of a spool folder, as the server would answer for them: its own and those of dead workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path
from typing import Final

import msgspec

from taskscope.logs.looking import Following, Seen, newest_first
from taskscope_exporters.logs.reading.conditions import Present, Query
from taskscope_exporters.logs.reading.counting import Tally
from taskscope_exporters.logs.reading.entry import Entry, entry
from taskscope_exporters.logs.reading.matching import matches, needles
from taskscope_exporters.logs.reading.source import Counts, ReadError
from taskscope_exporters.logs.template import audit_spool

__all__ = ["SpoolFollow", "Spooled"]

_DECODE: Final = msgspec.json.Decoder(dict[str, object]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A spool folder as a source, the audit lines' folder inside it included.

    unshipped_since: lines that were shipped are left out unless they are younger than this, in microseconds since
    1970; None leaves none out.
    """

    folder: Path
    unshipped_since: int | None = None

    def newest_at(self) -> int | None:
        """When its newest line was logged, in microseconds since 1970; None if it has none. Raises ReadError."""
        with self._reading():
            return max(
                (line.at for line in self._last_of_each()),
                default=None,
            )

    def newest(self, query: Query, limit: int) -> Iterator[Entry]:
        """The newest lines that the query asks for, the newest first. Raises ReadError."""
        if limit > 0:
            for line in self._matching(query):
                yield line
                limit -= 1
                if not limit:
                    return

    def top(self, query: Query, field: str, rows: int) -> Counts:
        """The most frequent values of a field. Raises ReadError."""
        tally = Tally(field)
        for line in self._matching(
            replace(query, conditions=(*query.conditions, Present(field=field)))
        ):
            tally.add(line)
        return tally.counts(rows)

    def follow(self) -> SpoolFollow:
        """What is written from now on. Raises ReadError."""
        with self._reading():
            return SpoolFollow(folders=self._folders())

    def _folders(self) -> list[Path]:
        inner = audit_spool(self.folder)
        return [self.folder, inner] if inner.is_dir() and not inner.is_symlink() else [self.folder]

    def _last_of_each(self) -> Iterator[Seen]:
        for folder in self._folders():
            for line in newest_first(folder, since=0):
                yield line
                break

    def _matching(self, query: Query) -> Iterator[Entry]:
        wanted = needles(query)
        with self._reading():
            for line in self._merged(query.since, wanted):
                found = read(line)
                if found is not None and matches(query, found):
                    yield found

    def _merged(self, since: int, holding: tuple[bytes, ...]) -> Iterator[Seen]:
        shipped = self.unshipped_since
        return merge(
            *(
                newest_first(folder, since=since, shipped_since=shipped, holding=holding)
                for folder in self._folders()
            ),
            key=lambda line: -line.at,
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ReadError(
                f"spool {self.folder} does not exist; name the service's folder with --spool or TASKSCOPE_SPOOL"
            ) from error
        except OSError as error:
            raise ReadError(
                f"spool {self.folder} cannot be read: {error.strerror}; run as the user of the service, or name "
                "another folder with --spool"
            ) from error


def read(line: Seen, wanted: tuple[bytes, ...] = ()) -> Entry | None:
    """The line as an Entry; None if it lacks one of the texts that it must hold, or is no line of ours."""
    if wanted:
        lower = line.raw.lower()
        if not all(text in lower for text in wanted):
            return None
    try:
        document: Mapping[str, object] = _DECODE(line.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return entry(line.id, document, at=line.at)


class SpoolFollow:
    """New lines of some folders; a folder for audit lines that is made later is followed from its beginning."""

    def __init__(self, *, folders: list[Path]) -> None:
        self._main = folders[0]
        self._followings = [Following(folder) for folder in folders]

    def lines(self, query: Query) -> list[Entry]:
        """What the query asks for of the lines that came since the last call, in no order."""
        if len(self._followings) == 1 and audit_spool(self._main).is_dir():
            self._followings.append(Following(audit_spool(self._main), from_start=True))
        wanted = needles(query)
        found: list[Entry] = []
        for following in self._followings:
            for line in following.lines():
                made = read(line, wanted)
                if made is not None and matches(query, made):
                    found.append(made)
        return found

    def close(self) -> None:
        """Nothing is held open any more."""
        for following in self._followings:
            following.close()
