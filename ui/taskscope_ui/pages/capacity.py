"""Capacity, for the manager of a service: how near it is to each of its limits, now and in the last hours."""

from __future__ import annotations

import os
from datetime import tzinfo

import streamlit as st

from taskscope.catalogue import Catalogue
from taskscope.errors import TaskscopeError
from taskscope_ui.charts import against_limits, one_measure, shares
from taskscope_ui.headroom import Level, Reading, level_of, verdict
from taskscope_ui.measures import MEASURES
from taskscope_ui.page_settings import PageSettings
from taskscope_ui.series import frame
from taskscope_ui.snapshot import RANGES, Now, history, now
from taskscope_ui.sources.prometheus import Prometheus, SourceError, UnreachableError
from taskscope_ui.wording import clock, percent, plain, rate, zone

REFRESH = "10s"
DEFAULT_RANGE = "3h"
_LAST_SEEN = (
    "measured"  # in the session: when the newest value was written, while Prometheus was there
)
_COLOUR = {Level.ROOM: "green", Level.NEAR: "orange", Level.OVER: "red", Level.UNKNOWN: "gray"}


def page() -> None:
    """The whole page, or the one sentence that says why there is none."""
    try:
        settings = PageSettings.from_environ(os.environ)
        catalogue = Catalogue.load(settings.app)
        prometheus = Prometheus(url=settings.prometheus_url)
    except TaskscopeError as error:
        st.title("Capacity")
        st.error("The page is not set up.", icon=":material/settings_alert:")
        st.text(str(error))
        return
    st.title("Capacity")
    st.caption(f"How near {plain(catalogue.service)} is to its limits.")
    live(prometheus, catalogue, settings.capacity_rps)
    explanation(settings.capacity_rps)


@st.fragment(run_every=REFRESH)
def live(prometheus: Prometheus, catalogue: Catalogue, capacity_rps: float) -> None:
    """The part that renews itself each ten seconds."""
    where = zone(st.context.timezone)
    try:
        found = now(prometheus, catalogue, capacity_rps=capacity_rps)
        if found.measured is None:
            no_data_yet(catalogue, prometheus)
            return
        st.session_state[_LAST_SEEN] = found.measured
        values_now(found, catalogue, where)
        error_budgets(catalogue, found)
        last_hours(prometheus, catalogue, found)
    except UnreachableError as error:
        unreachable(error, where)
    except SourceError as error:
        st.error("Prometheus cannot answer this page.", icon=":material/cloud_off:")
        st.text(str(error))


def values_now(found: Now, catalogue: Catalogue, where: tzinfo) -> None:
    """The verdict and one card for each measure."""
    says = verdict(found.readings)
    if found.instances == 0:
        st.error(
            f"No instance of {plain(catalogue.service)} answers: the values below are of before.",
            icon=":material/power_off:",
        )
    if found.stale:
        st.warning(
            f"Data until {clock(found.measured or 0.0, where)}: nothing was measured since. "
            "Run `taskscope doctor` to see what stopped.",
            icon=":material/history:",
        )
    elif found.instances:
        box, icon = {
            Level.ROOM: (st.success, ":material/check_circle:"),
            Level.NEAR: (st.warning, ":material/warning:"),
            Level.OVER: (st.error, ":material/error:"),
            Level.UNKNOWN: (st.info, ":material/help:"),
        }[says.level]
        box(plain(says.sentence), icon=icon)
    for column, reading in zip(st.columns(len(found.readings)), found.readings, strict=True):
        with column:
            card(reading)
    up = f"{found.instances} instance{'' if found.instances == 1 else 's'} up"
    st.caption(f"As of {clock(found.measured or 0.0, where)} · {up} · renewed each 10 seconds")


def card(reading: Reading) -> None:
    """One measure: its value, and how much of its limit that is."""
    used = reading.used
    with st.container(border=True, height="stretch"):
        st.metric(
            reading.measure.title,
            reading.shown,
            help=f"The limit is {reading.measure.limit_is}.",
        )
        st.progress(min(1.0, used or 0.0))
        st.markdown(f":{_COLOUR[level_of(used)]}[{plain(reading.against)}]")


def error_budgets(catalogue: Catalogue, found: Now) -> None:
    """What is left of each promise: how many more requests may fail before it is broken."""
    if not catalogue.objectives:
        return
    st.subheader("Error budget left", anchor=False)
    for column, objective in zip(
        st.columns(len(catalogue.objectives)), catalogue.objectives, strict=True
    ):
        left = found.budgets.get(objective.name)
        promise = f"{objective.target * 100:f}".rstrip("0").rstrip(".")
        with column, st.container(border=True):
            st.metric(
                plain(objective.title),
                "no data" if left is None else budget_left(left),
                help=f"{promise} % were promised over {objective.window.days} days; the budget is the rest.",
            )
            st.progress(min(1.0, max(0.0, left or 0.0)))
            st.caption(f"promised: {promise} % over {objective.window.days} days")


def budget_left(left: float) -> str:
    """The share of the budget, or by how much it was overspent."""
    return f"overspent by {percent(-left)}" if left < 0 else percent(left)


def last_hours(prometheus: Prometheus, catalogue: Catalogue, found: Now) -> None:
    """The chosen hours: all measures against their limits, then each in its own unit."""
    st.subheader("The last hours", anchor=False)
    chosen = chosen_range()
    past = history(prometheus, catalogue, until=found.asked, span_s=RANGES[chosen])
    table = frame(past.lines, step_s=past.step_s)
    bounds = {r.measure.key: r.limit for r in found.readings if r.limit}
    st.caption("Share of each limit in use, with the limits of now")
    st.altair_chart(
        against_limits(shares(table, bounds), start=past.start, end=past.end),
        width="stretch",
        alt="Each measure as a share of its limit over the chosen hours",
    )
    columns = st.columns(2)
    for number, measure in enumerate(MEASURES):
        limit = bounds.get(measure.key)
        with columns[number % 2]:
            suffix = f", limit {measure.shown(limit)}" if limit else ""
            st.caption(plain(f"{measure.title}{suffix}"))
            st.altair_chart(
                one_measure(
                    table[table["measure"] == measure.key],
                    measure,
                    limit,
                    start=past.start,
                    end=past.end,
                ),
                width="stretch",
                alt=f"{measure.title} over the chosen hours",
            )


def chosen_range() -> str:
    """The reader's choice; the address bar may name it, and anything that is no choice is dropped."""
    asked = st.query_params.get("range", DEFAULT_RANGE)
    first = asked if asked in RANGES else DEFAULT_RANGE
    chosen = st.segmented_control(
        "Hours shown", list(RANGES), default=first, key="range", label_visibility="collapsed"
    )
    chosen = chosen if chosen in RANGES else first
    if st.query_params.to_dict() != {"range": chosen} and (st.query_params or chosen != first):
        st.query_params.from_dict({"range": chosen})
    return chosen


def no_data_yet(catalogue: Catalogue, prometheus: Prometheus) -> None:
    """Prometheus is there, and has never heard of the service."""
    st.info(f"No data of {plain(catalogue.service)} yet.", icon=":material/hourglass_empty:")
    st.text(
        f"Prometheus at {prometheus.shown} answers, but holds no measurement of {catalogue.service}. "
        "The first values come about a minute after the service starts; after that, run: taskscope doctor"
    )


def unreachable(error: UnreachableError, where: tzinfo) -> None:
    """Nothing answers: what that means, since when, and the remedy."""
    st.error("The measurements cannot be reached.", icon=":material/cloud_off:")
    st.text(str(error))
    last = st.session_state.get(_LAST_SEEN)
    if isinstance(last, float):
        st.caption(f"Data until {clock(last, where)}")


def explanation(capacity_rps: float) -> None:
    """The page in words, for a first reader."""
    with st.expander("How to read this page"):
        st.markdown(
            "- **Requests per second** against what the running instances can carry: "
            f"{plain(rate(capacity_rps))} each, as declared in `PAGE_CAPACITY_RPS`.\n"
            "- **Response time**: 95 of 100 requests are faster than this; "
            "the limit is the response time that was promised.\n"
            "- **Failed requests**: the share that ended in an error of ours; "
            "the limit is what may fail without breaking the promise.\n"
            "- **Database pool**: connections in use, of all that may be opened; "
            "at 100 % requests queue for one.\n"
            "- **Error budget**: how much of what may go wrong in 30 days is still unspent."
        )


page()
