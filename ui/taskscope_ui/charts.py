"""The page's charts, made with Altair from data frames. Pure: what they are given is what they draw."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from taskscope_ui.measures import ERRORS, LATENCY, MEASURES, POOL, TRAFFIC, Measure

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

__all__ = ["COLOURS", "against_limits", "one_measure", "shares"]

COLOURS: Final[dict[str, str]] = {
    # Okabe and Ito's palette: told apart by people who see colours differently.
    TRAFFIC.key: "#0072b2",
    LATENCY.key: "#e69f00",
    ERRORS.key: "#cc79a7",
    POOL.key: "#009e73",
}
_LIMIT_COLOUR: Final = "#c0392b"
_AXES: Final[dict[str, str]] = {
    # How a value is written on an axis, as a Vega expression of it.
    TRAFFIC.key: "format(datum.value, ',.3~r')",
    LATENCY.key: "format(datum.value * 1000, ',.3~r') + ' ms'",
    ERRORS.key: "format(datum.value * 100, '.3~r') + ' %'",
    POOL.key: "format(datum.value * 100, '.3~r') + ' %'",
}
_LIMIT_NEAR: Final = 3.0
"""A limit up to so many times the highest value is drawn; beyond it the line would lie on the floor."""


def shares(table: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """The table with each value as a share of its measure's limit, and the measure's title beside it."""
    titles = {measure.key: measure.title for measure in MEASURES}
    kept = table[table["measure"].isin([key for key, limit in limits.items() if limit])].copy()
    kept["share"] = kept["value"] / kept["measure"].map(limits).astype("float64")
    kept["title"] = kept["measure"].map(titles)
    return kept


def against_limits(
    table: pd.DataFrame, *, start: float, end: float
) -> alt.LayerChart | alt.FacetChart:
    """Every measure as a share of its limit over time, under one line at 100 %.

    start, end: what the time axis spans, in seconds since 1970, whatever there is of it.
    """
    import altair as alt

    order = [m.title for m in MEASURES]
    top = max(1.05, min(2.0, float(table["share"].max()) * 1.05)) if len(table) else 1.05
    lines = (
        alt.Chart(table)
        .mark_line(strokeWidth=2, clip=True)
        .encode(
            x=_time_axis(start, end),
            y=alt.Y(
                "share:Q",
                title=None,
                scale=alt.Scale(domain=[0, top]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            color=alt.Color(
                "title:N",
                title=None,
                sort=order,
                scale=alt.Scale(domain=order, range=[COLOURS[m.key] for m in MEASURES]),
                legend=alt.Legend(orient="bottom", labelLimit=300),
            ),
            tooltip=[
                alt.Tooltip("time:T", title="Time", format="%d %b %H:%M"),
                alt.Tooltip("title:N", title="Measure"),
                alt.Tooltip("share:Q", title="Share of its limit", format=".1%"),
            ],
        )
    )
    return alt.layer(lines, *_limit_line(1.0, "limit")).properties(height=280)


def one_measure(
    table: pd.DataFrame, measure: Measure, limit: float | None, *, start: float, end: float
) -> alt.LayerChart | alt.FacetChart:
    """One measure in its own unit, with its limit where that is near enough to be seen."""
    import altair as alt

    table = table.assign(shown=[measure.shown(value) for value in table["value"]])
    highest = float(table["value"].max()) if len(table) and table["value"].notna().any() else 0.0
    near = limit is not None and limit <= highest * _LIMIT_NEAR
    top = max(highest * 1.1, limit * 1.05 if near and limit is not None else 0.0) or limit or 1.0
    axis = alt.Axis(labelExpr=_AXES[measure.key], tickCount=4)
    base = alt.Chart(table).encode(
        x=_time_axis(start, end),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=axis),
        tooltip=[
            alt.Tooltip("time:T", title="Time", format="%d %b %H:%M"),
            alt.Tooltip("shown:N", title=measure.title),
        ],
    )
    colour = COLOURS[measure.key]
    layers = [
        base.mark_area(opacity=0.12, color=colour, line=False),
        base.mark_line(strokeWidth=2, color=colour),
    ]
    if near and limit is not None:
        layers += _limit_line(limit, "limit")
    return alt.layer(*layers).properties(height=150)


def _time_axis(start: float, end: float) -> alt.X:
    import altair as alt

    return alt.X(
        "time:T",
        title=None,
        axis=alt.Axis(format="%H:%M", tickCount=6, labelFlush=True),
        scale=alt.Scale(domain=[_moment(start), _moment(end)]),
    )


def _moment(time: float) -> alt.DateTime:
    import altair as alt

    # A bare number would be read as a year.
    utc = datetime.fromtimestamp(time, UTC)
    return alt.DateTime(
        year=utc.year,
        month=utc.month,
        date=utc.day,
        hours=utc.hour,
        minutes=utc.minute,
        seconds=utc.second,
        utc=True,
    )


def _limit_line(at: float, word: str) -> list[alt.Chart]:
    import altair as alt
    import pandas as pd

    base = alt.Chart(pd.DataFrame({"limit": [at], "word": [word]})).encode(y="limit:Q")
    return [
        base.mark_rule(color=_LIMIT_COLOUR, strokeDash=[6, 4], strokeWidth=1.5),
        base.mark_text(color=_LIMIT_COLOUR, align="left", dx=4, dy=-7, fontSize=11).encode(
            x=alt.value(0), text="word:N"
        ),
    ]
