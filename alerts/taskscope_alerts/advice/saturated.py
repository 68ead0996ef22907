"""The words about what is full: the database pool, or file descriptors."""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    DB_OPERATION_DURATION,
    DB_PENDING,
    DB_TIMEOUTS,
    DB_WAIT_TIME,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
)
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["descriptors", "pool", "timeouts"]


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


def timeouts(catalogue: Catalogue) -> Runbook:
    """Callers give up waiting for a connection."""
    return Runbook(
        meaning=(
            "Users get errors, or an answer after seconds: a request asked the pool for a database connection, waited "
            "as long as it may, and had none. The pool is not nearly full, it is full, and the requests queue."
        ),
        urgency=(
            "A ticket by itself; the share of requests that it spoils is judged by the budget alerts, and if one of "
            "them came too, this is its cause: begin here. One caller in ten seconds is the threshold."
        ),
        look=_timeouts_look(catalogue),
        causes=(
            "A statement that became slow, or a lock that everybody waits for: connections come back late.",
            "A transaction left open while something else is awaited, such as a call to another service.",
            "More requests at a time than connections: each needs one for its whole length.",
            "A connection leak: idle falls to 0 and stays there, also without traffic.",
            "The database was away: the pool makes its connections anew, and those who wait meanwhile give up.",
        ),
        mitigate=(
            *_pool_mitigate(),
            Step(
                text="It helped when the third query of the first look stays at 0 for five minutes, at the usual "
                "traffic. To see the alert come by intent, give the pool one connection on a stack of your own."
            ),
        ),
        resolves="When fewer than one caller in ten seconds gave up in the last five minutes.",
    )


def _timeouts_look(catalogue: Catalogue) -> tuple[Step, ...]:
    operation, role, shard, _ = DB_OPERATION_DURATION.label_names
    buckets = selector(catalogue, DB_OPERATION_DURATION, part="bucket")
    waits = selector(catalogue, DB_WAIT_TIME, part="bucket")
    return (
        Step(
            text="Who waits, how long (p95, in seconds), and who gives up? One instance alone leaks connections.",
            code=f"{selector(catalogue, DB_PENDING)}\n"
            f"histogram_quantile(0.95, sum by (instance, le) (rate({waits}[5m])))\n"
            f"sum by (instance) (rate({selector(catalogue, DB_TIMEOUTS)}[5m]))",
            language="promql",
        ),
        Step(
            text="Which statements hold the connections? A p95 that rose with the trouble is the cause; none did: more "
            "traffic, or a transaction that waits for something else.",
            code=f"histogram_quantile(0.95, sum by ({operation}, {role}, {shard}, le) (rate({buckets}[5m])))",
            language="promql",
        ),
        *_pool_look(catalogue),
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
