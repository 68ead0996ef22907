"""The words about what is full, the pool or file descriptors, and about errors of the telemetry itself."""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    LIBRARY_ERRORS,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
)
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["descriptors", "library", "pool"]


def pool(catalogue: Catalogue) -> Runbook:
    """The database pool is nearly all in use."""
    return Runbook(
        meaning=(
            "One instance has had more than 90 % of its database connections in use for five minutes. Requests still "
            "pass, but the next slow query makes them queue: first latency rises, then waiting for a connection "
            "times out and becomes a server error."
        ),
        urgency=(
            "A ticket by itself. If a budget alert of the same service came with it, this is its cause: begin here. "
            "From 90 % to full it takes two connections of twenty."
        ),
        look=_pool_look(catalogue),
        causes=(
            "A slow query, often a new one or one whose table has grown.",
            "More traffic than the pool was sized for.",
            "A transaction left open while something else is awaited, such as a call to another service.",
            "A connection leak: use never falls, not even at night.",
        ),
        mitigate=_pool_mitigate(),
        resolves="At the first evaluation with at most 90 % in use.",
    )


def _pool_look(catalogue: Catalogue) -> tuple[Step, ...]:
    service = escape(catalogue.service)
    return (
        Step(
            text="All instances, or one? One alone leaks connections or got all the traffic.",
            code=f"{selector(catalogue, DB_CONNECTIONS)}\n{selector(catalogue, DB_CONNECTIONS_MAX)}",
            language="promql",
        ),
        Step(
            text="More traffic, or slower requests at the same traffic? Requests in flight rise with both, "
            "the rate only with the first.",
            code=f'service:http_requests:rate5m{{service="{service}"}}\n'
            f'service:http_request_duration_seconds:p95_rate5m{{service="{service}"}}\n'
            f"sum by (instance) ({selector(catalogue, ACTIVE_REQUESTS)})",
            language="promql",
        ),
        first_look.psql(
            "What do the connections do? In PostgreSQL: long or `idle in transaction` is the culprit.",
            "select pid, state, now() - xact_start as open_for, left(query, 80) from pg_stat_activity "
            "where state <> 'idle' order by xact_start limit 20",
        ),
        first_look.log_lines(
            catalogue,
            "Do requests already wait in vain?",
            levels=("warning", "error", "critical"),
        ),
    )


def _pool_mitigate() -> tuple[Step, ...]:
    return (
        first_look.psql(
            "End the query or the idle transaction that holds the connections.",
            "select pg_terminate_backend(PID)",
        ),
        first_look.add_instance(
            "Traffic: add an instance, as long as all pools together stay below the server's `max_connections`."
        ),
        first_look.restart("Leak: restart that instance, then file the leak; it will come back."),
    )


def descriptors(catalogue: Catalogue) -> Runbook:
    """A process has nearly used up its file descriptors."""
    return Runbook(
        meaning=(
            "A process has more than 80 % of its file descriptors open. At the limit it accepts no connection, opens "
            "no database connection and writes no log file: it looks alive and serves nothing."
        ),
        urgency="How fast it rises says how long there is: the second query gives the hours left at the present slope.",
        look=(
            Step(
                text="Which process, and how near?",
                code=f"{selector(catalogue, PROCESS_OPEN_FDS)}\n{selector(catalogue, PROCESS_MAX_FDS)}",
                language="promql",
            ),
            Step(
                text="Hours until the limit, if it goes on as in the last hour; none or below 0 if it does not rise.",
                code=_hours_left(catalogue),
                language="promql",
            ),
            Step(
                text="What is open? Many sockets are clients or a pool; many files are a leak.",
                code="ls -l /proc/PID/fd | awk '{print $NF}' | sed \"s/[0-9]*//g\" | sort | uniq -c | sort -rn | head",
                language="sh",
            ),
        ),
        causes=(
            "Clients that connect and never hang up; the proxy should cut them off.",
            "HTTP clients or files opened per request and not closed.",
            "A limit that is too low for the traffic: 1024 is the default of many systems.",
        ),
        mitigate=(
            first_look.restart("Restart the process: it begins again at a handful."),
            Step(
                text="Raise the limit (`ulimits: nofile` of the container), then find the leak by day."
            ),
        ),
        resolves="At the first evaluation with at most 80 % open.",
    )


def _hours_left(catalogue: Catalogue) -> str:
    used, most = selector(catalogue, PROCESS_OPEN_FDS), selector(catalogue, PROCESS_MAX_FDS)
    return f"({most} - {used}) / deriv({used}[1h]) / 3600"


def library(catalogue: Catalogue) -> Runbook:
    """The telemetry itself raises errors."""
    return Runbook(
        meaning=(
            "An error was raised inside the telemetry, caught, and kept from the request: **users are served**. What "
            "that part would have told is missing: `middleware` and `metrics` make the objectives count too few "
            "requests, `logs` and `tracing` leave gaps there, `probes` freezes the pool's gauges."
        ),
        urgency=(
            "A ticket. If `middleware` or `metrics` fail for a large share of the requests, distrust the burn alerts "
            "and look at the proxy's log for what users get: the second query is that share."
        ),
        look=_library_look(catalogue),
        causes=(
            "A metric is used with a label it does not declare, since the last release.",
            "A value that cannot be measured or written: not a number, an object whose text raises.",
            "An OTLP endpoint that is set and does not answer (`tracing`).",
            "A fault of the library itself.",
        ),
        mitigate=(
            first_look.roll_back(
                "If it began with a release and the share is large, go back to the one before."
            ),
            Step(
                text="Or switch the failing part off until it is mended: `metrics=False`, `logs=False` or "
                "`tracing=False` in the call of `taskscope.instrument`. Without metrics MetricsAbsent will page."
            ),
        ),
        resolves="Ten minutes after the last error.",
    )


def _library_look(catalogue: Catalogue) -> tuple[Step, ...]:
    component = LIBRARY_ERRORS.label_names[0]
    return (
        Step(
            text="Which part, on which instance, how often?",
            code=f"sum by (instance, {component}) (increase({selector(catalogue, LIBRARY_ERRORS)}[10m]))",
            language="promql",
        ),
        Step(
            text="Errors for each request; near 0 it touches nobody's judgement.",
            code=f"sum(rate({selector(catalogue, LIBRARY_ERRORS)}[5m])) / "
            f'on () service:http_requests:rate5m{{service="{escape(catalogue.service)}"}}',
            language="promql",
        ),
        first_look.log_lines(
            catalogue,
            "The library says each cause once a minute, with its traceback.",
            levels=("warning", "error", "critical"),
        ),
        first_look.youngest(catalogue),
    )
