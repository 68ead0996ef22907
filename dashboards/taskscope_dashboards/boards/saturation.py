"""Panels about what is full, who is up, and whether the numbers themselves can be believed."""

from __future__ import annotations

from decimal import Decimal

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    BUILD,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    LIBRARY_ERRORS,
    PROCESS_CPU,
    PROCESS_MAX_FDS,
    PROCESS_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_START_TIME,
)
from taskscope.catalogue.promql import selector
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Column, Panel, Query, Step, View, unit_of
from taskscope_dashboards.queries import all_jobs, per_second, value

__all__ = ["instances", "saturation", "self_health"]

_EACH = ("instance",)


def instances(catalogue: Catalogue) -> Panel:
    """How many processes of each job answer their scrape."""
    return Panel(
        title="Instances up",
        description=(
            "The share of each job's processes that Prometheus can scrape. Below 100 %: open the targets page of "
            "Prometheus and the log of the one that is missing."
        ),
        unit="percentunit",
        view=View.STAT,
        decimals=0,
        queries=(Query(expr=f"avg by (job) (up{{{all_jobs(catalogue)}}})", legend="{{job}}"),),
        steps=(
            Step(colour="red"),
            Step(colour="orange", above=Decimal("0.5")),
            Step(colour="green", above=Decimal(1)),
        ),
    )


def saturation(catalogue: Catalogue) -> tuple[Panel, ...]:
    """What runs out first: pool, processor, memory, requests in flight, file descriptors."""
    return (
        _pool_use(catalogue),
        _pool_states(catalogue),
        _in_flight(catalogue),
        _processor(catalogue),
        _memory(catalogue),
        _descriptors(catalogue),
    )


def _pool_use(catalogue: Catalogue) -> Panel:
    state = DB_CONNECTIONS.labels[0].prometheus
    used = value(catalogue, DB_CONNECTIONS, by=_EACH, matchers=(f'{state}="used"',))
    most = value(catalogue, DB_CONNECTIONS_MAX, by=_EACH)
    return Panel(
        title="Database pool in use",
        description=(
            "Connections in use against the most a pool may open. At 100 % requests wait for a connection: look for "
            "slow queries first, then widen the pool or add an instance."
        ),
        unit="percentunit",
        queries=(Query(expr=f"{used} / ({most} > 0)", legend="{{instance}}"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.9"))),
        maximum=Decimal(1),
    )


def _pool_states(catalogue: Catalogue) -> Panel:
    state = DB_CONNECTIONS.labels[0].prometheus
    return Panel(
        title="Database connections",
        description=(
            "Open connections by state, over all instances, and the most they may open. Idle near the top: the pools "
            "are wider than the work needs."
        ),
        unit=unit_of(DB_CONNECTIONS),
        queries=(
            Query(expr=value(catalogue, DB_CONNECTIONS, by=(state,)), legend=f"{{{{{state}}}}}"),
            Query(expr=value(catalogue, DB_CONNECTIONS_MAX), legend="most"),
        ),
        colours=(("used", "yellow"), ("idle", "green"), ("most", "red")),
    )


def _in_flight(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Requests in flight",
        description=(
            "Requests that are being served now. A steady rise with an even request rate: something below answers "
            "more slowly; see latency and the pool."
        ),
        unit=unit_of(ACTIVE_REQUESTS),
        queries=(Query(expr=value(catalogue, ACTIVE_REQUESTS, by=_EACH), legend="{{instance}}"),),
        stacked=True,
    )


def _processor(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Processor",
        description=(
            "Processor time per second; 100 % is one core, which is all that one Python process uses well. Near it: "
            "add an instance, then profile."
        ),
        unit="percentunit",
        queries=(Query(expr=per_second(catalogue, PROCESS_CPU, by=_EACH), legend="{{instance}}"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.9"))),
    )


def _memory(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Memory",
        description=(
            "Memory each process holds. A line that only rises over hours is a leak: restart that instance, keep its "
            "log, then find the growth."
        ),
        unit=unit_of(PROCESS_MEMORY),
        queries=(Query(expr=value(catalogue, PROCESS_MEMORY, by=_EACH), legend="{{instance}}"),),
    )


def _descriptors(catalogue: Catalogue) -> Panel:
    used = value(catalogue, PROCESS_OPEN_FDS, by=_EACH)
    most = value(catalogue, PROCESS_MAX_FDS, by=_EACH)
    return Panel(
        title="File descriptors in use",
        description=(
            "Open descriptors against the most a process may open. Above 80 % new connections will soon fail: look "
            "for connections that are not closed."
        ),
        unit="percentunit",
        queries=(Query(expr=f"{used} / ({most} > 0)", legend="{{instance}}"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.8"))),
    )


def self_health(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether the library and the scrape work, and what runs since when."""
    component = LIBRARY_ERRORS.labels[0].prometheus
    version, library, commit, python = BUILD.label_names
    build = selector(catalogue, BUILD)
    started = selector(catalogue, PROCESS_START_TIME)
    errors = Panel(
        title="Errors inside the library",
        description=(
            "Errors that the instrumentation kept from the requests. Above 0: a signal is missing on this board; the "
            "log lines name the component and the cause."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, LIBRARY_ERRORS, by=(component,)),
                legend=f"{{{{{component}}}}}",
            ),
        ),
    )
    scrape = Panel(
        title="Scrape time",
        description=(
            "How long each target's answer to Prometheus takes. Above a few seconds: samples get lost; look for a "
            "label with too many values."
        ),
        unit="s",
        queries=(
            Query(
                expr=f"max by (job, instance) (scrape_duration_seconds{{{all_jobs(catalogue)}}})",
                legend="{{job}} {{instance}}",
            ),
        ),
    )
    running = Panel(
        title="What runs",
        description=(
            "Version of each instance and when it started. Two versions for longer than a rollout takes: the rollout "
            "hangs; recent starts that you did not make are crashes."
        ),
        unit="dateTimeFromNow",
        view=View.TABLE,
        queries=(
            Query(
                expr=f"{build} * on (instance) group_left () ({started} * 1000)",
                legend="Started",
                instant=True,
            ),
        ),
        columns=(
            Column(label="instance", title="Instance"),
            Column(label=version, title="Version"),
            Column(label=commit, title="Commit"),
            Column(label=python, title="Python"),
            Column(label=library, title="taskscope"),
        ),
    )
    return spread((errors, scrape, running), per_line=3, height=7)
