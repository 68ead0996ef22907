"""The way of a log line: late, refused, lost, or not counted.

A line that waits is a ticket. A line of level error or critical that is lost is a page: from then on the next incident
cannot be explained, and nobody would notice.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    AUDIT_FAILED,
    COLLECTOR_UP,
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DISCARDED,
    LOG_DROPPED,
    LOG_SHIPPER_UP,
    SPOOL_LIMIT,
    SPOOL_SIZE,
)
from taskscope.catalogue.promql import any_of, number, selector
from taskscope_alerts.advice import logs
from taskscope_alerts.expression import binary, enclosed, risen
from taskscope_alerts.rule import Alert
from taskscope_alerts.severity import Severity
from taskscope_alerts.ticket import ticket

__all__ = ["LOG_AGE_LIMIT_S", "SPOOL_LIMIT_RATIO", "URGENT_LEVELS", "log_alerts"]

LOG_AGE_LIMIT_S: Final = 60
SPOOL_LIMIT_RATIO: Final = 0.8
URGENT_LEVELS: Final = ("error", "critical")
"""Whose loss is a page."""

_BOARD: Final = "logs"


def log_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about lines that do not arrive, or are not counted."""
    return (
        _age(catalogue),
        _spool(catalogue),
        *_dropped(catalogue),
        _discarded(catalogue),
        _audit(catalogue),
        _dead_letters(catalogue),
        _disconnected(catalogue),
        _uncounted(catalogue),
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
        board=_BOARD,
    )


def _spool(catalogue: Catalogue) -> Alert:
    waiting, bound = selector(catalogue, SPOOL_SIZE), selector(catalogue, SPOOL_LIMIT)
    return ticket(
        catalogue,
        SPOOL_SIZE,
        name="LogSpoolSaturated",
        expr=binary(f"max({waiting})", "/", f"max({bound}) > {number(SPOOL_LIMIT_RATIO)}"),
        hold="2m",
        summary="{{ $value | humanizePercentage }} of the log spool is in use",
        description=(
            "The lines that wait for Elasticsearch have filled {{ $value | humanizePercentage }} of their room on disk "
            "for 2 minutes. Near 100 % lines below warning are dropped, at 100 % all of them."
        ),
        runbook=logs.spool(catalogue),
        board=_BOARD,
    )


def _dropped(catalogue: Catalogue) -> tuple[Alert, ...]:
    others = tuple(value for value in LOG_DROPPED.labels[1].values if value not in URGENT_LEVELS)
    return (
        _lost(catalogue, URGENT_LEVELS, Severity.PAGE, "errors are being lost from the log"),
        _lost(catalogue, others, Severity.TICKET, "log lines are being lost"),
    )


def _lost(catalogue: Catalogue, levels: tuple[str, ...], severity: Severity, what: str) -> Alert:
    reason, level = LOG_DROPPED.label_names
    source = selector(catalogue, LOG_DROPPED, matchers=(f'{level}=~"{any_of(levels)}"',))
    return ticket(
        catalogue,
        LOG_DROPPED,
        name="LogLinesDropped",
        expr=f"sum by ({reason}) (increase({source}[10m])) > 0",
        severity=severity,
        summary=f"{what}, reason {{{{ $labels.{reason} }}}}",
        description=(
            f'About {{{{ $value | printf "%.0f" }}}} lines of level {" or ".join(levels)} in 10 minutes could not be '
            f"written to the spool ({{{{ $labels.{reason} }}}}). They are lost for good."
        ),
        runbook=logs.dropped(catalogue),
        board=_BOARD,
    )


def _discarded(catalogue: Catalogue) -> Alert:
    rise = f"sum(increase({selector(catalogue, LOG_DISCARDED)}[10m])) > 0"
    return ticket(
        catalogue,
        LOG_DISCARDED,
        name="LogLinesDropped",
        expr=f'label_replace(\n  {rise},\n  "reason", "dead_letters_full", "", ""\n)',
        summary="log lines are being lost, reason {{ $labels.reason }}",
        description=(
            'About {{ $value | printf "%.0f" }} lines in 10 minutes were refused by Elasticsearch for good and found '
            "no room among the dead letters ({{ $labels.reason }}). They are lost for good."
        ),
        runbook=logs.dropped(catalogue),
        board=_BOARD,
    )


def _audit(catalogue: Catalogue) -> Alert:
    (reason,) = AUDIT_FAILED.label_names
    return ticket(
        catalogue,
        AUDIT_FAILED,
        name="AuditLinesDropped",
        expr=f"sum by ({reason}) (increase({selector(catalogue, AUDIT_FAILED)}[10m])) > 0",
        severity=Severity.PAGE,
        summary=f"audit lines are not stored, reason {{{{ $labels.{reason} }}}}",
        description=(
            'About {{ $value | printf "%.0f" }} audit lines in 10 minutes could not be stored '
            f"({{{{ $labels.{reason} }}}}). Who did what in that time is not known, and cannot be found out later."
        ),
        runbook=logs.audit(catalogue),
        board=_BOARD,
    )


def _dead_letters(catalogue: Catalogue) -> Alert:
    source = selector(catalogue, LOG_DEAD_LETTERS)
    kinds = LOG_DEAD_LETTERS.label_names
    # The shipper has this one from its start, at 0; all others come with their first letter.
    born = selector(catalogue, LOG_DEAD_LETTERS, matchers=(f'{kinds[0]}!="damaged_line"',))
    by = f" by ({', '.join(kinds)})"
    kind = f" ({{{{ $labels.{kinds[0]} }}}})"
    return ticket(
        catalogue,
        LOG_DEAD_LETTERS,
        name="LogLinesRefused",
        expr=f"sum{by} {enclosed(risen(source, '10m', born=born))}",
        summary=f"Elasticsearch refuses log lines for good{kind}",
        description=(
            f'At least {{{{ $value | printf "%.0f" }}}} lines in 10 minutes were refused by Elasticsearch for good'
            f"{kind} and set aside as dead letters. They are on disk, but no search finds them."
        ),
        runbook=logs.dead_letters(catalogue),
        board=_BOARD,
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
        board=_BOARD,
    )


def _uncounted(catalogue: Catalogue) -> Alert:
    return ticket(
        catalogue,
        COLLECTOR_UP,
        name="LogCollectorDisconnected",
        expr=f"max({selector(catalogue, COLLECTOR_UP)}) == 0",
        hold="5m",
        summary="the lines in Elasticsearch have not been counted for 5 minutes",
        description=(
            "The collector has had no answer, or a refusal, from Elasticsearch for 5 minutes, or cannot keep its "
            "counts. The series of lines and errors end there; what comes meanwhile is counted afterwards."
        ),
        runbook=logs.counts(catalogue),
        board=_BOARD,
    )
