"""What fills up, blocks or lags: the database pool, the event loop, file descriptors.

These are causes, not harm to users, which the objectives' burn tells: each is a ticket.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    DB_CONNECTIONS,
    DB_PENDING,
    DB_TIMEOUTS,
    EVENT_LOOP_LAG,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
)
from taskscope.catalogue.promql import escape, number, selector
from taskscope_alerts.advice import blocked, saturated
from taskscope_alerts.expression import all_of, binary
from taskscope_alerts.rule import Alert
from taskscope_alerts.ticket import ticket

__all__ = [
    "FD_LIMIT",
    "LAG_LIMIT_S",
    "POOL_LIMIT",
    "TIMEOUT_LIMIT",
    "saturation_alerts",
]

POOL_LIMIT: Final = Decimal("0.9")
TIMEOUT_LIMIT: Final = Decimal("0.1")
"""Callers a second that may give up waiting for a connection."""
LAG_LIMIT_S: Final = Decimal("0.25")
FD_LIMIT: Final = Decimal("0.8")

_LEAST_BEATS: Final = 30
"""Of the 3,000 in five minutes; a loop that is held for ten seconds at a time beats as rarely."""


def saturation_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about something that is full or late."""
    return (
        _pool(catalogue),
        _timeouts(catalogue),
        _loop(catalogue),
        _descriptors(catalogue),
    )


def _pool(catalogue: Catalogue) -> Alert:
    series = (
        f'service:db_client_connection_utilization:ratio{{service="{escape(catalogue.service)}"}}'
    )
    return ticket(
        catalogue,
        DB_CONNECTIONS,
        name="DatabasePoolSaturated",
        expr=f"{series} > {number(POOL_LIMIT)}",
        hold="5m",
        summary="{{ $value | humanizePercentage }} of the fullest database pool is in use",
        description=(
            "The fullest instance has used {{ $value | humanizePercentage }} of its connections for 5 minutes. "
            "At 100 % every further request waits for one, and then times out."
        ),
        runbook=saturated.pool(catalogue),
    )


def _timeouts(catalogue: Catalogue) -> Alert:
    waiting = f"sum({selector(catalogue, DB_PENDING)})"
    first = '{{ . | first | value | printf "%.0f" }}{{ else }}unknown{{ end }}'
    now = f"{{{{ with query `{waiting}` }}}}{first}"
    return ticket(
        catalogue,
        DB_TIMEOUTS,
        name="DatabasePoolTimeouts",
        expr=f"sum(rate({selector(catalogue, DB_TIMEOUTS)}[5m])) > {number(TIMEOUT_LIMIT)}",
        hold="5m",
        summary="requests give up waiting for a database connection",
        description=(
            'About {{ $value | printf "%.2f" }} callers a second have given up waiting for a connection of the '
            f"database pool for 5 minutes; waiting at this moment: {now}. "
            "Each of them is most likely a request that failed."
        ),
        runbook=saturated.timeouts(catalogue),
        board="runtime",
    )


def _loop(catalogue: Catalogue) -> Alert:
    lag = f"sum by (instance, le) (rate({selector(catalogue, EVENT_LOOP_LAG, part='bucket')}[5m]))"
    beats = f"sum by (instance) (increase({selector(catalogue, EVENT_LOOP_LAG, part='count')}[5m]))"
    return ticket(
        catalogue,
        EVENT_LOOP_LAG,
        name="EventLoopBlocked",
        expr=all_of(
            f"histogram_quantile(0.99, {lag}) > {number(LAG_LIMIT_S)}", f"{beats} > {_LEAST_BEATS}"
        ),
        hold="5m",
        summary="the event loop of {{ $labels.instance }} is held up for {{ $value | humanizeDuration }}",
        description=(
            "For 5 minutes one wake-up in a hundred on {{ $labels.instance }} has come {{ $value | humanizeDuration }} "
            "late or later: something computes or blocks inside an async function, and every request of that process "
            "waits with it."
        ),
        runbook=blocked.loop(catalogue),
        board="runtime",
    )


def _descriptors(catalogue: Catalogue) -> Alert:
    share = binary(selector(catalogue, PROCESS_OPEN_FDS), "/", selector(catalogue, PROCESS_MAX_FDS))
    return ticket(
        catalogue,
        PROCESS_OPEN_FDS,
        name="FileDescriptorsExhausted",
        expr=binary(share, ">", number(FD_LIMIT)),
        hold="5m",
        summary="{{ $labels.instance }} has {{ $value | humanizePercentage }} of its file descriptors open",
        description=(
            "{{ $labels.instance }} has had more than 80 % of its file descriptors open for 5 minutes. "
            "At 100 % it can accept no connection and open no file."
        ),
        runbook=saturated.descriptors(catalogue),
    )
