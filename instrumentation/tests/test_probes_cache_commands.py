"""What Redis commands do to a cache, and for how long an entry is kept: from names and arguments alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.catalogue.groups import TTL_CLASSES
from taskscope.probes.commands import command_of, hits_and_misses, ttl_class_of, writes_of

NOW = 1_700_000_000.0


def ttl_class(*arguments: object) -> str:
    return ttl_class_of(command_of(arguments[0]), arguments, now=NOW, otherwise="days")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("SET", "k", "v"), "none"),
        (("SET", "k", "v", "EX", 59), "seconds"),
        (("SET", "k", "v", "NX", "EX", 60), "minutes"),
        (("SET", "k", "v", "PX", 3_600_000), "hours"),
        (("SET", "k", "v", "EX", 86_400), "days"),
        (("set", "k", "v", "ex", "61"), "minutes"),
        ((b"SET", "k", "v", b"EX", b"61", b"GET"), "minutes"),
        (("SET", "k", "v", "EXAT", int(NOW) + 61), "minutes"),
        (("SET", "k", "v", "PXAT", int(NOW + 61) * 1000), "minutes"),
        (("SET", "k", "v", "KEEPTTL"), "days"),
        (("SET", "k", "EX", "EX", 61), "minutes"),
        (("SETEX", "k", 61, "v"), "minutes"),
        (("PSETEX", "k", 61_000, "v"), "minutes"),
        (("SETNX", "k", "v"), "none"),
        (("MSET", "k", "v", "l", "w"), "none"),
        (("EXPIRE", "k", 61), "minutes"),
        (("PEXPIRE", "k", 61_000), "minutes"),
        (("EXPIREAT", "k", int(NOW) + 61), "minutes"),
        (("PEXPIREAT", "k", int(NOW + 61) * 1000), "minutes"),
        (("EXPIRE", "k", -1), "seconds"),
        (("PERSIST", "k"), "none"),
        (("GETEX", "k"), "days"),
        (("GETEX", "k", "EX", 61), "minutes"),
        (("GETEX", "k", "PERSIST"), "none"),
        (("GET", "k"), "days"),
        (("HSET", "k", "f", "v"), "days"),
        (("INCR", "k"), "days"),
        (("PING",), "days"),
    ],
)
def test_the_class_is_what_the_command_says_or_what_was_declared(
    arguments: tuple[object, ...], expected: str
) -> None:
    assert ttl_class(*arguments) == expected


@given(
    name=st.sampled_from(["SET", "GETEX", "GET", "EXPIRE", "PSETEX", "MSET", "NONSENSE"]),
    rest=st.lists(
        st.one_of(
            st.sampled_from(["EX", "PX", "EXAT", b"PXAT", "KEEPTTL"]), st.integers(), st.text()
        ),
        max_size=6,
    ),
)
def test_any_arguments_have_a_class_or_are_no_number(name: str, rest: list[object]) -> None:
    try:
        found = ttl_class(name, *rest)
    except (ValueError, OverflowError):
        return
    assert found in TTL_CLASSES


@pytest.mark.parametrize(
    ("arguments", "answer", "expected"),
    [
        (("GET", "k"), None, (0, 1)),
        (("GET", "k"), b"", (1, 0)),
        (("MGET", "a", "b", "c"), [b"1", None, b""], (2, 1)),
        (("HGETALL", "k"), {}, (0, 1)),
        (("HGETALL", "k"), {"f": "v"}, (1, 0)),
        (("EXISTS", "a", "b", "c"), 2, (2, 1)),
        (("SMISMEMBER", "k", "a", "b"), [1, 0], (1, 1)),
        (("SISMEMBER", "k", "a"), 0, (0, 1)),
        (("SET", "k", "v"), True, (0, 0)),
        (("DEL", "k"), 1, (0, 0)),
    ],
)
def test_each_entry_that_was_asked_for_is_a_hit_or_a_miss(
    arguments: tuple[object, ...], answer: object, expected: tuple[int, int]
) -> None:
    assert hits_and_misses(command_of(arguments[0]), arguments, answer) == expected


@pytest.mark.parametrize(
    ("arguments", "operation", "writes"),
    [
        (("SET", "k", "v"), "write", 1),
        (("MSET", "a", 1, "b", 2), "write", 2),
        (("hset", "k", "f", "v"), "write", 1),
        (("GET", "k"), "read", 0),
        (("UNLINK", "k"), "delete", 0),
        (("EVALSHA", "k"), "other", 0),
        ((b"get", "k"), "read", 0),
        ((b"\xff", "k"), "other", 0),
    ],
)
def test_commands_are_told_apart_by_name_in_any_case(
    arguments: tuple[object, ...], operation: str, writes: int
) -> None:
    command = command_of(arguments[0])
    assert (command.operation, writes_of(command, arguments)) == (operation, writes)
