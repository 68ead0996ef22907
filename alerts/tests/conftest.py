"""Services unlike the task API, and any service at all, for the rules that must hold for each."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import strategies as st

from taskscope.catalogue import (
    Catalogue,
    Kind,
    Label,
    Links,
    Match,
    Metric,
    Objective,
    Target,
    Window,
)
from taskscope.catalogue.builtin import OUTCOMES, REQUEST_DURATION
from taskscope_taskapi.catalogue import CATALOGUE

JOBS = Metric(
    name="mill.jobs",
    kind=Kind.COUNTER,
    unit="{job}",
    help="Jobs by result.",
    owner="mill",
    labels=(Label("result", values=("done", 'the "odd" one', "cut short (or not)", "failed")),),
    target="worker",
)
GRIND = Metric(
    name="mill.grind.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time to grind one sack.",
    owner="mill",
    target="worker",
)
MILL = Catalogue(
    service="wind-mill",
    metrics=(JOBS, GRIND),
    objectives=(
        Objective(
            name="jobs",
            title="Jobs that are done",
            metric=JOBS,
            target=Decimal("0.9"),
            window=Window(days=7),
            bad=Match(label="result", values=('the "odd" one', "cut short (or not)", "failed")),
        ),
        Objective(
            name="slow-grind",
            title="Sacks ground in two seconds",
            metric=GRIND,
            target=Decimal("0.5"),
            window=Window(days=1),
            threshold=Decimal(2),
        ),
    ),
    targets=(Target(name="worker", job="wind-mill.worker"),),
    links=Links(runbooks="https://runbooks.example/mill"),
)
BARE = Catalogue(service="bare")


@pytest.fixture(params=[CATALOGUE, MILL, BARE], ids=lambda catalogue: catalogue.service)
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    """Each of three services: judged by its requests, by its worker, by nothing."""
    assert isinstance(request.param, Catalogue)
    return request.param


SLUGS = st.from_regex(r"[a-z]{2,8}(?:-[a-z]{2,8}){0,2}", fullmatch=True)
TARGETS = st.decimals(min_value="0.0001", max_value="0.9999", places=4)
DAYS = st.integers(min_value=1, max_value=90)


@st.composite
def objectives(draw: st.DrawFn) -> Objective:
    """Any objective over the requests: availability or latency."""
    by_time = draw(st.booleans())
    values = draw(st.lists(st.sampled_from(OUTCOMES), min_size=1, unique=True))
    return Objective(
        name=draw(SLUGS),
        title="Requests as they should be",
        metric=REQUEST_DURATION,
        target=draw(TARGETS),
        window=Window(days=draw(DAYS)),
        bad=None if by_time else Match(label="outcome", values=tuple(values)),
        threshold=draw(st.decimals(min_value="0.01", max_value="30", places=2))
        if by_time
        else None,
    )


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Any service with up to three objectives."""
    found = draw(st.lists(objectives(), max_size=3, unique_by=lambda o: o.name))
    return Catalogue(service=draw(SLUGS), objectives=tuple(found))
