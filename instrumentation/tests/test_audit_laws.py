"""The law of the audit trail: whatever is done to its lines is found, and what nobody touched is intact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskscope.audit import Audit, Audited, AuditKey, Head, Report, verify
from taskscope.audit.verify import _Check

from .audit_worlds import KEY, die, heads, trail, written

Lines = list[Audited]
LAW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["record", "record", "record", "close", "kill"])),
    min_size=4,
    max_size=14,
).filter(lambda steps: any(act == "record" for _, act in steps))
SEEDS = st.integers(0, 2**32)
VALUES: tuple[object, ...] = (
    "",
    "a",
    "success",
    "0" * 64,
    -1,
    0,
    1,
    2,
    3,
    7.5,
    True,
    False,
    None,
    [],
    ["x"],
    {"a": 1},
)


@dataclass(frozen=True)
class World:
    """What several processes wrote, and what their folder knows."""

    lines: Lines
    heads: Sequence[Head]

    def shown(self, lines: Sequence[Audited]) -> Report:
        return verify(lines, [KEY], heads=self.heads)


@contextmanager
def lived(steps: Sequence[tuple[int, str]]) -> Iterator[World]:
    """Three processes have done these steps; who closes or dies is another process from then on."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder)
        living: dict[int, Audit] = {}
        try:
            for number, (slot, act) in enumerate(steps):
                if act == "record":
                    audit = living.setdefault(slot, trail(spool))
                    assert audit.record(
                        "user.login", user=f"u{number}", target="door", count=number
                    )
                elif slot in living:
                    ended = living.pop(slot)
                    die(ended) if act == "kill" else ended.close()
            yield World(lines=written(spool), heads=heads(spool))
        finally:
            for audit in living.values():
                audit.close()


def changed(line: Audited, **fields: object) -> Audited:
    return Audited(id=line.id, document={**line.document, **fields})


def same(one: Audited, other: Audited) -> bool:
    return msgspec.json.encode(one.document, order="sorted") == msgspec.json.encode(
        other.document, order="sorted"
    )


def a_value(lines: Lines, rng: Random) -> Lines:
    at = rng.randrange(len(lines))
    name = rng.choice(sorted(lines[at].document))
    line = changed(lines[at], **{name: rng.choice(VALUES)})
    return [*lines[:at], line, *lines[at + 1 :]] if not same(line, lines[at]) else lines


def an_inner_value(lines: Lines, rng: Random) -> Lines:
    at = rng.randrange(len(lines))
    labels: dict[str, Any] = dict(lines[at].document.get("labels", {}))  # type: ignore[call-overload] # an object
    line = changed(lines[at], labels={**labels, "target": rng.choice(VALUES)})
    return [*lines[:at], line, *lines[at + 1 :]] if not same(line, lines[at]) else lines


def a_field_less(lines: Lines, rng: Random) -> Lines:
    at = rng.randrange(len(lines))
    name = rng.choice(sorted(lines[at].document))
    rest = {key: value for key, value in lines[at].document.items() if key != name}
    return [*lines[:at], Audited(id=lines[at].id, document=rest), *lines[at + 1 :]]


def a_field_more(lines: Lines, rng: Random) -> Lines:
    at = rng.randrange(len(lines))
    return [*lines[:at], changed(lines[at], **{"event.ingested": "now"}), *lines[at + 1 :]]


def a_line_less(lines: Lines, rng: Random) -> Lines:
    at = rng.randrange(len(lines))
    return [*lines[:at], *lines[at + 1 :]]


def an_end_less(lines: Lines, rng: Random) -> Lines:
    chain = rng.choice(sorted({str(x.document["audit.chain"]) for x in lines}))
    own = [line for line in lines if line.document["audit.chain"] == chain]
    own.sort(key=lambda line: line.document["audit.sequence"])  # type: ignore[arg-type,return-value] # a number
    gone = {line.id for line in own[rng.randrange(len(own)) :]}
    return [line for line in lines if line.id not in gone]


def a_run_less(lines: Lines, rng: Random) -> Lines:
    chain = rng.choice(sorted({str(x.document["audit.chain"]) for x in lines}))
    return [line for line in lines if line.document["audit.chain"] != chain]


def a_copy_more(lines: Lines, rng: Random) -> Lines:
    line = rng.choice(lines)
    return [*lines, Audited(id=f"{line.id}-copy", document=line.document)]


def a_forgery_more(lines: Lines, rng: Random) -> Lines:
    """A line as whoever knows everything but the key would make it."""
    model = dict(rng.choice(lines).document)
    model["audit.sequence"] = rng.randrange(20)
    model["message"] = model["event.action"] = "user.login"
    rest = {key: value for key, value in model.items() if key != "audit.hash"}
    plain = sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()
    model["audit.hash"] = rng.choice([plain, AuditKey(b"x" * 32).hash(rest)])
    return [*lines, Audited(id="forged", document=model)]


def two_exchanged(lines: Lines, rng: Random) -> Lines:
    if len(lines) < 2:
        return lines
    one, other = rng.sample(range(len(lines)), 2)
    names = rng.choice(
        [("audit.sequence",), ("audit.sequence", "audit.previous"), ("message",), ("@timestamp",)]
    )
    now = list(lines)
    for place, source in ((one, other), (other, one)):
        now[place] = changed(lines[place], **{name: lines[source].document[name] for name in names})
    return now if any(not same(a, b) for a, b in zip(now, lines, strict=True)) else lines


TAMPERING: tuple[Callable[[Lines, Random], Lines], ...] = (
    *(a_value, an_inner_value, a_field_less, a_field_more, a_line_less, an_end_less),
    *(a_run_less, a_copy_more, a_forgery_more, two_exchanged),
)


@LAW
@given(steps=STEPS, seed=SEEDS)
def test_what_nobody_touched_is_intact_in_any_order_and_read_twice(
    steps: list[tuple[int, str]], seed: int
) -> None:
    with lived(steps) as world:
        order = [*world.lines, *world.lines[:2]]
        Random(seed).shuffle(order)
        report = world.shown(order)
    assert (report.breaks, report.unknown_keys) == ((), ())
    assert report.lines == len(world.lines)
    ended = {
        line.document["audit.chain"]
        for line in world.lines
        if line.document["event.action"] == "audit.run.closed"
    }
    everyone = {str(line.document["audit.chain"]) for line in world.lines}
    assert set(report.open) == everyone - ended


@LAW
@given(steps=STEPS, seed=SEEDS)
def test_whatever_is_done_to_the_lines_is_found(steps: list[tuple[int, str]], seed: int) -> None:
    with lived(steps) as world:
        rng = Random(seed)
        for tamper in TAMPERING:
            for _ in range(4):
                now = tamper(world.lines, rng)
                if now is not world.lines:
                    order = rng.sample(now, len(now))
                    assert not world.shown(order).intact, tamper.__name__


@LAW
@given(steps=STEPS, seed=SEEDS)
def test_a_line_that_is_on_its_way_and_stored_is_one_line(
    steps: list[tuple[int, str]], seed: int
) -> None:
    with lived(steps) as world:
        part = Random(seed).sample(world.lines, len(world.lines) // 2)
        assert world.shown([*part, *world.lines]).breaks == ()


def broken_world() -> list[tuple[int, str]]:
    return [(0, "record"), (0, "record"), (1, "record"), (0, "close"), (2, "record"), (2, "record")]


def unfound() -> set[str]:
    """The kinds of tampering that a few tries do not show."""
    missed: set[str] = set()

    rng = Random(5)
    with lived(broken_world()) as world:
        for tamper in TAMPERING * 25:
            now = tamper(world.lines, rng)
            if now is not world.lines and world.shown(now).intact:
                missed.add(tamper.__name__)
    return missed


def test_nothing_is_missed_where_no_fault_is_planted() -> None:
    assert unfound() == set()


def test_a_hash_that_leaves_out_a_field_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = AuditKey.hash

    def careless(self: AuditKey, document: dict[str, object]) -> str:
        return whole(self, {key: value for key, value in document.items() if key != "labels"})

    monkeypatch.setattr(AuditKey, "hash", careless)
    assert "an_inner_value" in unfound()


def test_a_check_of_the_sequence_alone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditKey, "holds", lambda *_: True)
    assert {"a_value", "an_inner_value", "a_field_more"} <= unfound()


def test_a_check_that_ignores_who_follows_whom_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Check, "_check_claims", lambda *_: None)
    assert {"an_end_less", "a_run_less"} <= unfound()
