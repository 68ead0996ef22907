"""An exception in a line: its frames, causes and groups as a list, bounded, without what nobody meant to log."""

from __future__ import annotations

import json
from typing import Any

from taskscope.logs.ecs import LINE_BYTES, EcsEncoder
from taskscope.logs.exceptions import ExcInfo


def told(error: BaseException, *, variables: bool = False) -> dict[str, Any]:
    encoder = EcsEncoder(
        service_name="s",
        service_version="1",
        environment="e",
        instance="i",
        variables=variables,
    )
    exc_info: ExcInfo = (type(error), error, error.__traceback__)
    line = encoder.line({"event": "failed"}, level="error", logger="app", exc_info=exc_info)
    assert len(line) <= LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


def caught(work: Any) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 # whatever was raised is looked at
        return error
    raise AssertionError("nothing was raised")


HELD = "hunter2"


def pay(order: str, password: str) -> None:
    limit = 3
    raise ValueError(f"no money for {order[:limit]}")


def test_frames_are_a_list_innermost_last() -> None:
    found = told(caught(lambda: pay("o-1", HELD)))
    (raised,) = found["error.frames"]
    assert (raised["type"], raised["message"], raised["how"]) == (
        "builtins.ValueError",
        "no money for o-1",
        "raised",
    )
    last = raised["frames"][-1]
    assert last["function"] == "pay"
    assert last["file"].endswith("test_logs_exceptions.py")
    assert isinstance(last["line"], int)
    assert "locals" not in last
    assert HELD not in json.dumps(found)


def test_local_variables_are_told_when_asked_without_their_secrets() -> None:
    found = told(caught(lambda: pay("o-1", HELD)), variables=True)
    last = found["error.frames"][0]["frames"][-1]
    assert last["locals"] == {"order": "o-1", "password": "[redacted]", "limit": "3"}
    assert HELD not in json.dumps(found)


def test_causes_and_contexts_say_whose_they_are() -> None:
    def work() -> None:
        try:
            try:
                {}["gone"]
            except KeyError as error:
                raise LookupError("no row") from error
        except LookupError:
            raise RuntimeError("no answer")  # noqa: B904 # the context is what is looked at

    entries = told(caught(work))["error.frames"]
    assert [(each["type"], each["how"], each.get("of")) for each in entries] == [
        ("builtins.RuntimeError", "raised", None),
        ("builtins.LookupError", "context", 0),
        ("builtins.KeyError", "cause", 1),
    ]


def test_the_members_of_a_group_are_told_and_bounded() -> None:
    def work() -> None:
        raise ExceptionGroup("several", [ValueError(str(number)) for number in range(100)])

    entries = told(caught(work))["error.frames"]
    assert len(entries) == 8
    assert {(each["how"], each["of"]) for each in entries[1:]} == {("member", 0)}


def test_a_cause_that_leads_back_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert [each["message"] for each in told(first)["error.frames"]] == ["first", "second"]


def test_a_deep_recursion_keeps_both_ends() -> None:
    def work(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        work(depth - 1)

    (raised,) = told(caught(lambda: work(500)), variables=True)["error.frames"]
    assert len(raised["frames"]) == 40
    assert raised["frames_left_out"] == 463
    assert raised["frames"][0]["function"] == "caught"
    assert raised["frames"][-1]["locals"]["depth"] == "0"


def test_an_object_in_a_variable_is_told_by_its_kind_and_not_asked_for_its_text() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("asked")

    def work() -> None:
        loud, many = Loud(), [Loud()]
        raise ValueError(loud is many)

    last = told(caught(work), variables=True)["error.frames"][0]["frames"][-1]
    assert last["locals"]["loud"].endswith(".Loud>")
    assert last["locals"]["many"] == '["[unreadable]"]'


def test_variables_of_any_size_stay_within_the_line() -> None:
    def work() -> None:
        rows = [{"row": "x" * 1000, "n": number} for number in range(10_000)]
        text = "é" * 10**6
        raise ValueError(text, len(rows))

    found = told(caught(work), variables=True)
    assert len(found["error.frames"][0]["frames"][-1]["locals"]["text"]) == 200
