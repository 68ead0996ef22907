"""What happens again and again is said once a minute, with its count."""

from __future__ import annotations

import threading

import pytest

from taskscope.once import MOST_KINDS, OncePerMinute


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_is_said_and_the_rest_of_its_minute_is_counted(clock: Clock) -> None:
    once = OncePerMinute(monotonic=clock)
    assert [once.turn("a") for _ in range(10)] == [1, *[0] * 9]
    clock.now = 59.9
    assert once.turn("a") == 0
    clock.now = 60.0
    assert [once.turn("a"), once.turn("a")] == [11, 0]


def test_each_kind_has_a_turn_of_its_own(clock: Clock) -> None:
    once = OncePerMinute(monotonic=clock)
    assert [once.turn("a"), once.turn("b"), once.turn("a")] == [1, 1, 0]


def test_kinds_without_end_share_one_turn(clock: Clock) -> None:
    once = OncePerMinute(monotonic=clock)
    assert sum(once.turn(number) > 0 for number in range(MOST_KINDS * 4)) == MOST_KINDS + 1


def test_kinds_that_ended_make_room_for_new_ones(clock: Clock) -> None:
    once = OncePerMinute(monotonic=clock)
    for number in range(MOST_KINDS * 4):
        once.turn(number)
    clock.now = 60.0
    assert [once.turn("new"), once.turn("newer")] == [1, 1]


def test_of_many_threads_one_says_it(clock: Clock) -> None:
    once = OncePerMinute(monotonic=clock)
    said: list[int] = []
    threads = [
        threading.Thread(target=lambda: said.extend(once.turn("a") for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(said) == 1
    clock.now = 60.0
    assert once.turn("a") == 2000
