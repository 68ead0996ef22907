"""Who is sampled: by the trace's id, as a trusted caller says, at most so many a second; ids that nobody else has."""

from __future__ import annotations

import os
from itertools import count
from random import Random
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from taskscope.tracing.bucket import Bucket
from taskscope.tracing.decider import Decider, Rule
from taskscope.tracing.hops import Hops
from taskscope.tracing.ids import Ids

PROXY = ("10.1.2.3", 40_000)
STRANGER = ("203.0.113.9", 40_000)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _decider(
    *, sampler: str = "parentbased_traceidratio", ratio: float = 1.0, rate: float = 1e9
) -> Decider:
    random = Random(11)
    return Decider(
        rule=Rule.of(sampler, ratio),
        hops=Hops(["10.0.0.0/8", "fd00::/8"]),
        ids=Ids(random.randbytes),
        bucket=Bucket(rate, Clock()),
    )


def _scope(client: object = STRANGER, parent: str | None = None) -> dict[str, Any]:
    headers = [] if parent is None else [(b"traceparent", parent.encode())]
    return {"type": "http", "headers": headers, "client": client}


def _parent(random: Random, flags: str = "01") -> str:
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-{flags}"


def test_a_share_of_the_traces_that_begin_here_is_sampled() -> None:
    decider = _decider(ratio=0.1)
    kept = sum(decider.decide(_scope()).sampled for _ in range(5_000))
    assert 436 <= kept <= 564  # 3 sigma


def test_the_share_is_that_of_opentelemetrys_own_sampler() -> None:
    decider, sampler = _decider(ratio=0.25), TraceIdRatioBased(0.25)
    for passage in [decider.decide(_scope()) for _ in range(1_000)]:
        theirs = sampler.should_sample(None, int(passage.trace_id, 16), "x").decision
        assert passage.sampled == (theirs is Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
def test_a_trusted_caller_is_followed(flags: str, sampled: bool) -> None:
    parent = _parent(Random(5), flags)
    passage = _decider(ratio=0.0 if sampled else 1.0).decide(_scope(PROXY, parent))
    assert passage.sampled is sampled
    assert passage.trace_id == parent[3:35]
    assert passage.parent is not None
    assert passage.parent.span_id == parent[36:52] != passage.span_id
    assert passage.link is None


def test_a_stranger_begins_a_new_trace_with_its_own_as_a_link() -> None:
    parent = _parent(Random(5))
    passage = _decider(ratio=0.0).decide(_scope(STRANGER, parent))
    assert not passage.sampled
    assert passage.trace_id != parent[3:35]
    assert passage.parent is None
    assert passage.link is not None
    assert passage.link.trace_id == parent[3:35]


def test_a_thousand_spoofed_flags_do_not_raise_the_share() -> None:
    decider, random = _decider(ratio=0.01), Random(3)
    kept = sum(decider.decide(_scope(STRANGER, _parent(random))).sampled for _ in range(1_000))
    assert kept <= 10 + 3 * 3.15  # 3 sigma


@pytest.mark.parametrize(
    ("sampler", "trusted_kept", "trusted_dropped", "own"),
    [
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("parentbased_always_on", True, False, True),
        ("parentbased_always_off", True, False, False),
        ("parentbased_traceidratio", True, False, False),
        ("traceidratio", False, False, False),
    ],
)
def test_opentelemetrys_samplers_do_as_they_are_called(
    sampler: str, trusted_kept: bool, trusted_dropped: bool, own: bool
) -> None:
    decider = _decider(sampler=sampler, ratio=0.0)
    assert decider.decide(_scope(PROXY, _parent(Random(1), "01"))).sampled is trusted_kept
    assert decider.decide(_scope(PROXY, _parent(Random(1), "00"))).sampled is trusted_dropped
    assert decider.decide(_scope()).sampled is own


def test_what_is_over_the_cap_is_told_apart_from_what_was_passed_over() -> None:
    decider = _decider(rate=2.0)
    decided = [decider.decide(_scope()) for _ in range(3)]
    assert [(each.sampled, each.capped) for each in decided] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_a_trusted_caller_is_not_above_the_cap() -> None:
    decider, random = _decider(rate=5.0), Random(3)
    kept = sum(decider.decide(_scope(PROXY, _parent(random))).sampled for _ in range(100))
    assert kept == 5


@pytest.mark.parametrize("flags", ["00", "02"])
def test_the_context_of_an_unsampled_request_bears_its_ids_without_the_flag(flags: str) -> None:
    passage = _decider().decide(_scope(PROXY, _parent(Random(5), flags)))
    context = passage.span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (
        passage.trace_id,
        passage.span_id,
    )
    assert context.trace_flags == int(flags, 16)


def test_a_bucket_gives_its_rate_at_once_and_then_as_time_goes_by() -> None:
    clock = Clock()
    bucket = Bucket(3.0, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.4
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 3_600
    assert sum(bucket.take() for _ in range(10)) == 3


def test_a_bucket_of_less_than_one_a_second_still_gives_one() -> None:
    clock = Clock()
    bucket = Bucket(0.5, clock)
    assert [bucket.take(), bucket.take()] == [True, False]
    clock.now += 2.0
    assert bucket.take()


@pytest.mark.parametrize(
    ("client", "trusted"),
    [
        (("10.0.0.1", 1), True),
        (["10.255.255.255", 1], True),
        (("fd00::1", 1), True),
        (("::ffff:10.0.0.1", 1), True),
        (("11.0.0.1", 1), False),
        (("::ffff:11.0.0.1", 1), False),
        (("testclient", 1), False),
        (("", 1), False),
        ((), False),
        (None, False),
    ],
)
def test_a_hop_is_trusted_by_its_address(client: object, trusted: bool) -> None:
    assert Hops(["10.0.0.0/8", "fd00::/8"]).trust(client) is trusted


def test_nobody_is_trusted_by_default() -> None:
    assert not Hops(()).trust(("127.0.0.1", 1))


def test_callers_from_everywhere_take_bounded_memory() -> None:
    hops = Hops(["10.0.0.0/8"])
    for number in range(5_000):
        assert hops.trust((f"10.0.{number // 256}.{number % 256}", 1))
    assert len(hops._known) <= 1_024


def test_ids_are_all_different_and_of_the_right_length() -> None:
    ids = Ids()
    pairs = {ids.pair() for _ in range(2_000)}
    assert len(pairs) == 2_000
    assert {len(pair) for pair in pairs} == {48}


def test_an_id_of_nothing_but_zeros_is_given_to_nobody() -> None:
    blocks = count()

    def mostly_nothing(size: int) -> bytes:
        return bytes(size - 24) + b"\1" * 24 if next(blocks) else bytes(size)

    assert Ids(mostly_nothing).pair() == "01" * 24


def test_threads_that_draw_at_once_get_different_ids() -> None:
    ids, drawn = Ids(), []

    def draw() -> None:
        drawn.extend([ids.pair() for _ in range(3_000)])

    threads = [Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 12_000


def test_a_fork_draws_other_ids_than_its_parent() -> None:
    ids = Ids()
    ids.pair()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.pair().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 48).decode()
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 48
    assert theirs not in {ids.pair() for _ in range(255)}
