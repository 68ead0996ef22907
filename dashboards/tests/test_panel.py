"""Panels, boards and the grid refuse what a reader in the night could not use."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope_dashboards.board import Board, Row
from taskscope_dashboards.layout import COLUMNS, Placed, Rectangle, overlaps, place, spread
from taskscope_dashboards.panel import BoardError, Panel, Query, Step, View

PANEL = Panel(
    title="Parcels per second",
    description="Parcels that leave; when none do, call the driver.",
    unit="short",
    queries=(Query(expr="vector(1)", legend="parcels"),),
    width=COLUMNS,
)


def board(*panels: Panel) -> Board:
    return Board(
        service="post",
        slug="oncall",
        title="post",
        description="All of it.",
        rows=(Row(title="What moves?", panels=panels),),
    )


def numbered(count: int) -> tuple[Panel, ...]:
    return tuple(
        replace(PANEL, title=f"Panel {n}", queries=(Query(expr=f"vector({n})", legend="x"),))
        for n in range(count)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"description": "Parcels"}, "say what is seen and what to do"),
        ({"unit": ""}, "has no unit"),
        ({"queries": ()}, "needs queries"),
        ({"view": View.LOGS}, "needs logs="),
        ({"view": View.TABLE}, "columns belong to a table"),
        ({"steps": (Step(colour="red", above=Decimal(1)),)}, "thresholds do not rise"),
        (
            {
                "steps": (
                    Step(colour="green"),
                    Step(colour="red", above=Decimal(2)),
                    Step(colour="red", above=Decimal(1)),
                )
            },
            "thresholds do not rise",
        ),
    ],
)
def test_a_panel_that_says_too_little_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(BoardError, match=sentence):
        replace(PANEL, **change)


def test_two_panels_that_ask_the_same_are_refused() -> None:
    with pytest.raises(BoardError, match="'Again' asks what 'Parcels per second' asks"):
        board(PANEL, replace(PANEL, title="Again"))


def test_two_panels_of_one_title_are_refused() -> None:
    other = replace(PANEL, queries=(Query(expr="vector(2)", legend="x"),))

    with pytest.raises(BoardError, match="two panels are called"):
        board(PANEL, other)


def test_a_line_that_is_not_full_is_refused() -> None:
    with pytest.raises(BoardError, match="fill 23 of 24 columns"):
        place(board(replace(PANEL, width=23)))


def test_neighbours_of_unequal_height_are_refused() -> None:
    low, high = (replace(p, width=12) for p in numbered(2))

    with pytest.raises(BoardError, match="not of one height"):
        place(board(low, replace(high, height=9)))


@given(st.integers(1, 40), st.sampled_from([1, 2, 3, 4, 6]))
def test_any_number_of_panels_fills_the_grid_without_overlap(count: int, per_line: int) -> None:
    places = [item.where for item in place(board(*spread(numbered(count), per_line=per_line)))]

    assert not any(overlaps(a, b) for i, a in enumerate(places) for b in places[i + 1 :])
    assert all(where.x + where.width <= COLUMNS for where in places)
    assert sum(w.width * w.height for w in places) == COLUMNS * max(w.y + w.height for w in places)


def test_an_overlap_would_be_seen() -> None:
    assert overlaps(Rectangle(0, 0, 12, 8), Rectangle(11, 7, 12, 8))
    assert not overlaps(Rectangle(0, 0, 12, 8), Rectangle(12, 0, 12, 8))


def test_a_panel_keeps_its_id_when_another_comes_before_it() -> None:
    first, second = numbered(2)

    alone = {i.panel.title: i.id for i in place(board(second)) if isinstance(i, Placed)}
    both = {i.panel.title: i.id for i in place(board(first, second)) if isinstance(i, Placed)}

    assert alone["Panel 1"] == both["Panel 1"]
