"""What is too large is cut where the documentation says, with a mark, and no cut lets half a secret through."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.logs.ecs import FIELD_BYTES, LINE_BYTES, EcsEncoder, quoted
from taskscope.redaction import Redaction
from taskscope.testing.needles import NEEDLES, Needle, hidden_by

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"
MESSAGE_BYTES = 8 * 1024
STACK_CHARS = 12 * 1024
ENCODER = EcsEncoder(service_name="shop", service_version="1", environment="test", instance="one")
HIDDEN = [needle for needle in hidden_by("default") if "cut off" not in needle.name]


def document(event: dict[str, object], error: BaseException | None = None) -> dict[str, Any]:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    line = ENCODER.line(event, level="info", logger="app", exc_info=exc_info)
    assert len(line) <= LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("sign", ["a", "é", "\U0001f600", '"', "\x00", "\n"])
def test_each_text_is_cut_at_its_bound_with_a_mark(sign: str) -> None:
    found = document(
        {"event": sign * 50_000, "note": sign * 50_000, "url.query": sign * 50_000},
        ValueError(sign * 50_000),
    )
    assert found["labels"]["truncated"] is True
    assert len(found["labels"]["note"].encode()) <= FIELD_BYTES
    assert len(found["url.query"].encode()) <= FIELD_BYTES
    assert len(found["message"].encode()) <= MESSAGE_BYTES
    assert len(found["error.message"].encode()) <= MESSAGE_BYTES


def test_what_is_as_large_as_its_bound_is_whole() -> None:
    found = document({"event": "a " * (MESSAGE_BYTES // 2), "note": "a " * (FIELD_BYTES // 2)})
    assert found["labels"] == {"note": "a " * (FIELD_BYTES // 2)}


def test_a_value_within_a_container_is_cut_too() -> None:
    found = document({"event": "x", "deep": [{"a": ("b" * 5_000,)}]})
    assert len(found["labels"]["deep"][0]["a"][0]) == FIELD_BYTES
    assert found["labels"]["truncated"] is True


def test_a_stack_keeps_both_of_its_ends_and_says_how_much_is_between() -> None:
    found = document({"event": "x"}, ValueError("first " + "y\n" * 20_000 + " last"))
    stack = found["error.stack_trace"]
    assert "ValueError: first" in stack
    assert stack.endswith("last\n")
    (left_out,) = re.findall(r"\n\[… (\d+) characters …\]\n", stack)
    assert int(left_out) > 20_000
    assert len(stack) < STACK_CHARS + 100
    assert found["labels"]["truncated"] is True


def test_a_path_that_is_cut_says_so() -> None:
    assert quoted("/" + "a" * 9_000, ENCODER.words) == (f'"/{"a" * (FIELD_BYTES - 1)}"', True)


@pytest.mark.parametrize("needle", HIDDEN, ids=lambda needle: needle.name)
def test_no_cut_lets_half_a_secret_through(needle: Needle) -> None:
    """The needle stands at each distance from the place of the cut, in a value, a message, a key and a stack."""
    parts = {secret[at : at + 6] for secret in needle.secret for at in range(0, len(secret) - 5, 3)}
    parts = {part for part in parts if re.search(r"n33|dle|[A-Za-z0-9+/]{6}|\d{4}", part)}
    filler = "a lazy dog "
    for before in range(0, len(needle.text) + 12, 5):
        told = json.dumps(
            [
                document({"event": "x", "note": pad(filler, FIELD_BYTES - before) + needle.text}),
                document(
                    {"event": pad(filler, MESSAGE_BYTES - before) + needle.text + filler * 999}
                ),
                document({"event": "x", pad(filler, 128 - min(before, 120)) + needle.text: 1}),
            ],
            ensure_ascii=False,
        )
        assert [part for part in parts if part in told] == []


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(HIDDEN), st.integers(0, 30_000), st.integers(0, 30_000), st.booleans())
def test_no_cut_of_a_stack_lets_half_a_secret_through(
    needle: Needle, before: int, after: int, secrets: bool
) -> None:
    filler = "password=x" + "y" * 60 + "\n" if secrets else "a lazy dog\n"
    text = f"{pad(filler, before)}\n{needle.text}\n{pad(filler, after)}"
    told = document({"event": "x"}, ValueError(text))["error.stack_trace"]
    assert not any(secret in told for secret in needle.secret)
    assert "n33dle" not in told


def pad(filler: str, size: int) -> str:
    return (filler * (size // len(filler) + 1))[:size]


def test_what_redaction_makes_short_does_not_bring_the_end_into_sight() -> None:
    """Ten thousand characters of secrets become few; the login that is cut in two after them must stay unseen."""
    for size in range(3_900, 4_200, 7):
        text = pad("password=" + "s" * 300 + " ", size) + " http://user:n33dle-n33dle-n33dle@host/"
        told = ENCODER.line({"event": "x", "k": text + "x" * 5_000}, level="info", logger="app")
        assert b"n33" not in told


def test_the_documentation_names_every_bound() -> None:
    section = PAGE.read_text().partition("\n## What is hidden\n")[2].partition("\n## ")[0]
    limits = Redaction().walk()._limits
    for told in (
        f"| {FIELD_BYTES // 1024} KiB |",
        f"| {MESSAGE_BYTES // 1024} KiB |",
        f"{STACK_CHARS:,} characters",
        f"{limits.depth} levels, {limits.items} items, {limits.values} values",
        f"{limits.key} characters",
        f"| {LINE_BYTES // 1024} KiB |",
    ):
        assert told in section
    assert NEEDLES
