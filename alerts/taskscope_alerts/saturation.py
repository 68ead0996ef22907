"""What fills up or leaks: the database pool, file descriptors, the log path, and the library's own errors.

These are causes, not harm to users, which the objectives' burn tells: each is a ticket.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Metric
from taskscope.catalogue.builtin import (
    DB_CONNECTIONS,
    LIBRARY_ERRORS,
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DROPPED,
    LOG_SHIPPER_UP,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
)
from taskscope.catalogue.promql import escape, number, selector
from taskscope_alerts.advice import logs, saturated
from taskscope_alerts.expression import binary
from taskscope_alerts.rule import Alert
from taskscope_alerts.runbook import Runbook
from taskscope_alerts.severity import Severity

__all__ = ["FD_LIMIT", "LOG_AGE_LIMIT_S", "POOL_LIMIT", "saturation_alerts"]

POOL_LIMIT: Final = Decimal("0.9")
FD_LIMIT: Final = Decimal("0.8")
LOG_AGE_LIMIT_S: Final = 60


def saturation_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about something that is full, late or lost."""
    return (
        _pool(catalogue),
        _descriptors(catalogue),
        _age(catalogue),
        _dropped(catalogue),
        _dead_letters(catalogue),
        _disconnected(catalogue),
        _library(catalogue),
    )


def _ticket(
    catalogue: Catalogue,
    metric: Metric,
    *,
    name: str,
    expr: str,
    summary: str,
    description: str,
    runbook: Runbook,
    hold: str = "",
) -> Alert:
    return Alert(
        name=name,
        expr=expr,
        severity=Severity.TICKET,
        labels=(("service", catalogue.service), ("subsystem", metric.subsystem)),
        hold=hold,
        summary=f"{catalogue.service}: {summary}",
        description=description,
        runbook=runbook,
    )


def _pool(catalogue: Catalogue) -> Alert:
    series = (
        f'service:db_client_connection_utilization:ratio{{service="{escape(catalogue.service)}"}}'
    )
    return _ticket(
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


def _descriptors(catalogue: Catalogue) -> Alert:
    share = binary(selector(catalogue, PROCESS_OPEN_FDS), "/", selector(catalogue, PROCESS_MAX_FDS))
    return _ticket(
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
    return _ticket(
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
    return _ticket(
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
    return _ticket(
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
    return _ticket(
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


def _library(catalogue: Catalogue) -> Alert:
    component = LIBRARY_ERRORS.label_names[0]
    increase = f"increase({selector(catalogue, LIBRARY_ERRORS)}[10m])"
    return _ticket(
        catalogue,
        LIBRARY_ERRORS,
        name="TelemetryFailing",
        expr=binary(f"sum by ({component}) ({increase})", ">", "0"),
        summary=f"the telemetry itself fails in {{{{ $labels.{component} }}}}",
        description=(
            f'About {{{{ $value | printf "%.0f" }}}} errors in 10 minutes inside {{{{ $labels.{component} }}}} were '
            "kept from the requests. Users are served, but what that part would have told is missing."
        ),
        runbook=saturated.library(catalogue),
    )
