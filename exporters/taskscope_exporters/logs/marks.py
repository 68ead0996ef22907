"""Which lines of a stream are counted already: a sequence number for each shard, up to which all are.

Elasticsearch numbers what a shard stores 0, 1, 2, … in the order of arrival; a line that is refused as a duplicate
takes no number. So neither a clock nor a line's own time decides what is counted: a late line is a new number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MOST_MARKS", "Marks", "Tip", "Window", "tips"]

MOST_MARKS: Final = 2_000
"""Shards that are remembered; those that have been gone for longest are forgotten first."""

_BACKING = re.compile(r"\.ds-(?P<stream>.+?)-(?:\d{4}\.\d{2}\.\d{2}-)?(?P<generation>\d{6,})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """How far one shard has come: every number up to `number` is stored on each of its copies, -1 for none.

    generation: how many-eth backing index of its stream it belongs to, 0 where its name does not say.
    """

    index: str
    uuid: str
    shard: str
    number: int
    generation: int

    @property
    def key(self) -> str:
        """What names the shard, also when another index takes its index's name."""
        return f"{self.uuid}/{self.shard}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Lines of one shard that are to be counted: numbers above `above`, up to and with `upto`."""

    key: str
    index: str
    shard: str
    above: int
    upto: int

    @property
    def size(self) -> int:
        """How many lines it holds, once a search sees all of them."""
        return self.upto - self.above


def tips(answer: Mapping[str, object]) -> tuple[Tip, ...]:
    """The primary shards in an answer of `_stats?level=shards`, in the order of their indices' names."""
    found: list[Tip] = []
    for index, told in sorted(_mapping(answer.get("indices")).items()):
        uuid = str(_mapping(told).get("uuid", index))
        name = _BACKING.match(index)
        for shard, copies in _mapping(_mapping(told).get("shards")).items():
            number = _checkpoint(copies)
            if number is not None:
                found.append(
                    Tip(
                        index=index,
                        uuid=uuid,
                        shard=shard,
                        number=number,
                        generation=int(name["generation"]) if name else 0,
                    )
                )
    return tuple(found)


def _checkpoint(copies: object) -> int | None:
    for copy in copies if isinstance(copies, list) else ():
        number = _mapping(_mapping(copy).get("seq_no")).get("global_checkpoint")
        if _mapping(_mapping(copy).get("routing")).get("primary") and isinstance(number, int):
            return max(number, -1)
    return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


@dataclass(slots=True, kw_only=True)
class Marks:
    """The marks of a stream's shards. counted: up to which number, by the shard's key.

    newest: the youngest generation that was seen. began: whether anything was looked at before; what is stored at
    the first look of all counts as counted.
    """

    counted: dict[str, int] = field(default_factory=dict)
    newest: int = 0
    began: bool = False

    def admit(self, found: Iterable[Tip]) -> None:
        """Every shard has a mark.

        A backing index that is younger than all others has been written since, and is counted from its start. Any
        other stranger (shrunk, mounted or restored from a snapshot) holds lines that were counted under another name.
        A stream that was deleted and made anew looks like a restored one: what it holds already is not counted.
        """
        shards = tuple(found)
        replaced = not any(tip.key in self.counted for tip in shards)
        for tip in shards:
            if tip.key not in self.counted:
                fresh = self.began and tip.generation > self.newest
                self.counted[tip.key] = -1 if fresh else tip.number
        if shards:
            youngest = max(tip.generation for tip in shards)
            self.newest = youngest if replaced else max(self.newest, youngest)
        self.began = True
        self._forget(shards)

    def _forget(self, shards: tuple[Tip, ...]) -> None:
        present = {tip.key for tip in shards}
        gone = [key for key in self.counted if key not in present]
        for key in gone[: max(0, len(self.counted) - MOST_MARKS)]:
            del self.counted[key]

    def window(self, tip: Tip, *, upto: int, most: int) -> Window | None:
        """The next lines of the shard up to `upto`, at most `most` of them; None where there are none."""
        above = self.counted[tip.key]
        end = min(upto, tip.number, above + most)
        if end <= above:
            return None
        return Window(key=tip.key, index=tip.index, shard=tip.shard, above=above, upto=end)

    def advanced(self, windows: Iterable[Window]) -> Marks:
        """The marks after these windows were counted."""
        done = {window.key: window.upto for window in windows}
        return Marks(counted={**self.counted, **done}, newest=self.newest, began=self.began)

    def behind(self, found: Iterable[Tip]) -> int:
        """Lines that are stored and not counted."""
        return sum(max(0, tip.number - self.counted.get(tip.key, tip.number)) for tip in found)
