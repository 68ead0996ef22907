"""What fills up, blocks or lags: the database pool, the event loop, file descriptors, the log path.

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
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DROPPED,
    LOG_SHIPPER_UP,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
)
from taskscope.catalogue.promql import escape, number, selector
from taskscope_alerts.advice import blocked, logs, saturated
from taskscope_alerts.expression import all_of, binary
from taskscope_alerts.rule import Alert
from taskscope_alerts.ticket import ticket

__all__ = [
    "FD_LIMIT",
    "LAG_LIMIT_S",
    "LOG_AGE_LIMIT_S",
    "POOL_LIMIT",
    "TIMEOUT_LIMIT",
    "saturation_alerts",
]

POOL_LIMIT: Final = Decimal("0.9")
TIMEOUT_LIMIT: Final = Decimal("0.1")
"""Callers a second that may give up waiting for a connection."""
LAG_LIMIT_S: Final = Decimal("0.25")
FD_LIMIT: Final = Decimal("0.8")
LOG_AGE_LIMIT_S: Final = 60

_LEAST_BEATS: Final = 30
"""Of the 3,000 in five minutes; a loop that is held for ten seconds at a time beats as rarely."""


def saturation_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about something that is full, late or lost."""
    return (
        _pool(catalogue),
        _timeouts(catalogue),
        _loop(catalogue),
        _descriptors(catalogue),
        _age(catalogue),
        _dropped(catalogue),
        _dead_letters(catalogue),
        _disconnected(catalogue),
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


def _age(catalogue: Catalogue) -> Alert:
    return ticket(
        catalogue,
        LOG_AGE,
        name="LogDeliveryDelayed",
        expr=f"max({selector(catalogue, LOG_AGE)}) > {LOG_AGE_LIMIT_S}",
        hold="2m",
        summary="the oldest log line not yet in Elasticsearch is {{ $value | humanizeDuration }} old",
        description=(
            f"Log lines have reached Elasticsearch more than {LOG_AGE_LIMIT_S} s late for 2 minutes; the oldest is "
            "{{ $value | humanizeDuration }} old. Nothing is lost: they wait in the spool until it is full."
        ),
        runbook=logs.log_path(catalogue),
    )


def _dropped(catalogue: Catalogue) -> Alert:
    return ticket(
        catalogue,
        LOG_DROPPED,
        name="LogLinesDropped",
        expr=f"sum by (reason) (increase({selector(catalogue, LOG_DROPPED)}[10m])) > 0",
        summary="log lines are being lost, reason {{ $labels.reason }}",
        description=(
            'About {{ $value | printf "%.0f" }} lines in 10 minutes could not be written to the spool '
            "({{ $labels.reason }}). They are lost for good."
        ),
        runbook=logs.dropped(catalogue),
    )


def _dead_letters(catalogue: Catalogue) -> Alert:
    return ticket(
        catalogue,
        LOG_DEAD_LETTERS,
        name="LogLinesRefused",
        expr=f"sum(increase({selector(catalogue, LOG_DEAD_LETTERS)}[10m])) > 0",
        summary="Elasticsearch refuses log lines for good",
        description=(
            'About {{ $value | printf "%.0f" }} lines in 10 minutes were refused by Elasticsearch for good and set '
            "aside in the dead-letter file. They are on disk, but no search finds them."
        ),
        runbook=logs.dead_letters(catalogue),
    )


def _disconnected(catalogue: Catalogue) -> Alert:
    return ticket(
        catalogue,
        LOG_SHIPPER_UP,
        name="LogShipperDisconnected",
        expr=f"max({selector(catalogue, LOG_SHIPPER_UP)}) == 0",
        hold="3m",
        summary="Elasticsearch has taken no log lines for 3 minutes",
        description=(
            "The shipper has had no answer, or a refusal, from Elasticsearch for 3 minutes. Lines wait in the spool; "
            "the logs board and every log search end where the trouble began."
        ),
        runbook=logs.log_path(catalogue),
    )
