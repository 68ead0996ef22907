"""Whether audit lines are what was written: none changed, taken out, put in or moved, whoever may write their store.

Order and number come from the chain alone, so lines may come from anywhere, in any order, and the same one twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Final

from taskscope.audit.heads import Head
from taskscope.audit.links import CLOSED, FIRST, AuditKey, Claim, Link

__all__ = ["Audited", "Break", "BreakKind", "Report", "verify"]

_MOST_MOVED: Final = 8
_MOST_FALSE: Final = 1_000


class BreakKind(Enum):
    """What was done to the lines."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    MOVED = "reordered"
    RUN_REMOVED = "run removed"
    FORKED = "forked"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One line. id: of its document; the same line under the same id may come twice, as from two copies of it."""

    id: str
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One place where the lines are not what was written.

    sequence, last: from which place in the chain to which. id: of the document that shows it; empty where none does.
    said: what was found, in words.
    """

    kind: BreakKind
    chain: str
    sequence: int
    last: int
    id: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the lines show. first, last: time stamps of the oldest and the newest line.

    open: chains without a closing line, which are still written or whose process was killed.
    notes: what is no break and should be known. unknown_keys: names of keys that lines were sealed with, and which
    were not given; such lines are not checked.
    """

    chains: int
    lines: int
    first: str
    last: str
    open: tuple[str, ...]
    breaks: tuple[Break, ...]
    notes: tuple[str, ...]
    unknown_keys: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether all lines could be checked and are what was written."""
        return not self.breaks and not self.unknown_keys


@dataclass(frozen=True, slots=True)
class _Place:
    id: str
    hash: str
    previous: str
    action: str


@dataclass(slots=True)
class _Chain:
    """What was found of one chain. good: by place. false: lines whose hash does not hold, by what they say."""

    good: dict[int, _Place] = field(default_factory=dict)
    false: list[tuple[Link, Audited]] = field(default_factory=list)
    claims: tuple[Claim, ...] = ()
    known: bool = False
    unknown: set[str] = field(default_factory=set)
    mixed: list[tuple[Link, Audited]] = field(default_factory=list)


def verify(
    lines: Iterable[Audited],
    keys: Sequence[AuditKey],
    *,
    heads: Iterable[Head] = (),
    without_before: Collection[str] = (),
) -> Report:
    """What the lines show, sealed with any of the keys.

    heads: of the folder they were written in, read before them: what these say must be there. without_before: chains
    whose predecessors were not asked for. Both are looked at after the last line.
    Memory: some hundred bytes for a line.
    """
    check = _Check({key.name: key for key in keys})
    for line in lines:
        check.add(line)
    return check.report([*heads], frozenset(without_before))


class _Check:
    def __init__(self, keys: Mapping[str, AuditKey]) -> None:
        self._keys = keys
        self._chains: dict[str, _Chain] = defaultdict(_Chain)
        self._breaks: list[Break] = []
        self._notes: list[str] = []
        self._told: set[tuple[str, str, int, str]] = set()
        self._seen: set[tuple[str, str]] = set()
        self._stamps = ["", ""]
        self._lines = 0
        self._false = 0

    def add(self, line: Audited) -> None:
        link = Link.of(line.document)
        if link is None:
            self._count(line, "")
            self._break(BreakKind.INSERTED, "", -1, line.id, "it has no place in a chain")
            return
        chain = self._chains[link.chain]
        key = self._keys.get(link.key)
        if key is None:
            if self._count(line, link.hash):
                chain.unknown.add(link.key)
                if len(chain.mixed) < _MOST_FALSE:
                    chain.mixed.append((link, line))
        elif key.holds(line.document):
            if self._count(line, link.hash):
                self._take(chain, link, line)
        else:
            self._lines += 1
            self._false += 1
            chain.known = True
            if self._false <= _MOST_FALSE:
                chain.false.append((link, line))

    def _count(self, line: Audited, hash_: str) -> bool:
        """Whether the line is a new one, and not a copy of one under its own id."""
        if (line.id, hash_) in self._seen:
            return False
        self._seen.add((line.id, hash_))
        self._lines += 1
        return True

    def _take(self, chain: _Chain, link: Link, line: Audited) -> None:
        chain.known = True
        self._stamps[0] = min(self._stamps[0] or link.at, link.at)
        self._stamps[1] = max(self._stamps[1], link.at)
        there = chain.good.get(link.sequence)
        if there is not None:
            said = (
                "a copy of the line" if there.hash == link.hash else "another line with the place"
            )
            self._break(
                BreakKind.INSERTED, link.chain, link.sequence, line.id, f"{said} of {there.id}"
            )
            return
        chain.good[link.sequence] = _Place(line.id, link.hash, link.previous, link.action)
        if link.sequence == 0:
            chain.claims = link.claims

    def report(self, heads: Sequence[Head], without_before: frozenset[str]) -> Report:
        if self._false > _MOST_FALSE:
            self._notes.append(
                f"{self._false} lines do not hold; {_MOST_FALSE} of them are told, look for a wrong key"
            )
        open_: list[str] = []
        unknown: set[str] = set()
        for name in sorted(self._chains):
            chain = self._chains[name]
            if chain.known and chain.mixed:
                for link, line in chain.mixed:
                    self._break(
                        BreakKind.CHANGED, name, link.sequence, line.id, "it names another key"
                    )
            elif chain.mixed:
                unknown |= chain.unknown
                continue
            self._check_lines(name, chain)
            if chain.good and chain.good[max(chain.good)].action != CLOSED:
                open_.append(name)
        self._check_claims(heads, without_before)
        return Report(
            chains=len(self._chains),
            lines=self._lines,
            first=self._stamps[0],
            last=self._stamps[1],
            open=tuple(open_),
            breaks=tuple(sorted(self._breaks, key=lambda each: (each.chain, each.sequence))),
            notes=tuple(self._notes),
            unknown_keys=tuple(sorted(unknown)),
        )

    def _check_lines(self, name: str, chain: _Chain) -> None:
        """The chain from its first line to the last that is there."""
        self._check_false(name, chain)
        taken = _taken(chain)
        last = max(chain.good, default=-1)
        for begin, end in _gaps(sorted(place for place in taken if place <= last), last):
            self._break(BreakKind.REMOVED, name, begin, "", "missing", last=end)
        if 0 in chain.good and chain.good[0].previous != FIRST:
            self._break(BreakKind.DETACHED, name, 0, chain.good[0].id, "it is no first line")
        for before, place in pairwise(sorted(chain.good)):
            found = chain.good[place]
            if place == before + 1 and found.previous != chain.good[before].hash:
                said = f"it does not follow {chain.good[before].id}"
                self._break(BreakKind.DETACHED, name, place, found.id, said)
            if chain.good[before].action == CLOSED:
                self._break(BreakKind.INSERTED, name, place, found.id, "it follows a closing line")

    def _check_false(self, name: str, chain: _Chain) -> None:
        for link, line in chain.false:
            moved = self._moved(chain, link, line)
            if moved is not None:
                said = f"it was written as {moved}"
                self._break(BreakKind.MOVED, name, link.sequence, line.id, said)
            elif link.sequence in chain.good and chain.good[link.sequence].id != line.id:
                said = f"its hash does not hold, and {chain.good[link.sequence].id} has its place"
                self._break(BreakKind.INSERTED, name, link.sequence, line.id, said)
            else:
                self._break(
                    BreakKind.CHANGED, name, link.sequence, line.id, "its hash does not hold"
                )

    def _moved(self, chain: _Chain, link: Link, line: Audited) -> int | None:
        """The place that the line was written for, if with that of another one its hash would hold."""
        key = self._keys[link.key]
        others = [other for other, _ in chain.false[:_MOST_MOVED]]
        if len(chain.false) < 2:
            return None
        hashes = {other.hash for other in others}
        for place in {other.sequence for other in others}:
            for previous in {other.previous for other in others}:
                asked = {**line.document, "audit.sequence": place, "audit.previous": previous}
                if key.hash(asked) in hashes:
                    return place
        return None

    def _check_claims(self, heads: Sequence[Head], without_before: frozenset[str]) -> None:
        claimed: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._chains):
            chain = self._chains[name]
            for claim in chain.claims:
                claimed[claim.chain].append(name)
                if name not in without_before:
                    self._check_claim(claim, f"the run {name} follows it", chain.good[0].id)
        for head in heads:
            self._check_claim(head.claim, "the spool's folder knows it", "")
        for name, by in sorted(claimed.items()):
            for other in by[1:]:
                place = self._chains[other].good[0]
                said = f"{by[0]} and {other} both follow it"
                self._break(
                    BreakKind.FORKED, name, _claimed_at(self._chains[other], name), place.id, said
                )

    def _check_claim(self, claim: Claim, why: str, id_: str) -> None:
        """What somebody knew of a run is there."""
        chain = self._chains.get(claim.chain)
        if claim.sequence < 0 or (chain is not None and not chain.known):
            return  # nothing is known to have been written, or nothing could be checked
        if chain is None:
            if claim.sure:
                self._break(
                    BreakKind.RUN_REMOVED, claim.chain, 0, id_, f"{why}", last=claim.sequence
                )
            else:
                self._note_lost(claim, 0)
            return
        place = chain.good.get(claim.sequence)
        if place is not None:
            if place.hash != claim.hash:
                said = f"{why}, with another hash"
                self._break(BreakKind.DETACHED, claim.chain, claim.sequence, place.id, said)
            return
        last = max(chain.good, default=-1)
        taken = sorted(place for place in _taken(chain) if last < place <= claim.sequence)
        for begin, end in _gaps([last, *taken], claim.sequence, start=last + 1):
            if claim.sure:
                self._break(BreakKind.REMOVED, claim.chain, begin, id_, f"missing; {why}", last=end)
            else:
                self._note_lost(claim, begin)

    def _note_lost(self, claim: Claim, begin: int) -> None:
        self._notes.append(
            f"chain {claim.chain} lacks {begin} to {claim.sequence} at its end: lost when the machine went down, or "
            "taken out since"
        )

    def _break(
        self, kind: BreakKind, chain: str, sequence: int, id_: str, said: str, *, last: int = -1
    ) -> None:
        found = Break(
            kind=kind, chain=chain, sequence=sequence, last=max(sequence, last), id=id_, said=said
        )
        # What is missing is missed by all who know of it, and told once.
        missed = kind in (BreakKind.REMOVED, BreakKind.RUN_REMOVED)
        mark = (kind.value, chain, sequence, "" if missed else id_)
        if mark not in self._told:
            self._told.add(mark)
            self._breaks.append(found)


def _claimed_at(chain: _Chain, name: str) -> int:
    """The place that the chain's first line names of another."""
    return next((claim.sequence for claim in chain.claims if claim.chain == name), 0)


def _taken(chain: _Chain) -> set[int]:
    """The places of which a line is there, be it changed or not."""
    return {*chain.good, *(link.sequence for link, _ in (*chain.false, *chain.mixed))}


def _gaps(places: Sequence[int], last: int, *, start: int = 0) -> Iterator[tuple[int, int]]:
    """From where to where places are missing, from `start` to `last`; places: sorted, none above `last`."""
    for place in places:
        if place >= start:
            if place > start:
                yield start, place - 1
            start = place + 1
    if start <= last:
        yield start, last
