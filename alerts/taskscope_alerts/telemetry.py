"""What the telemetry itself loses: its own errors, label values it had to fold, workers' files it cannot read.

Users are served meanwhile, but the boards tell less than the truth: each is a ticket.
"""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import FILES_SKIPPED, LIBRARY_ERRORS, OVERFLOWED
from taskscope.catalogue.metric import OVERFLOW
from taskscope.catalogue.promql import selector
from taskscope_alerts.advice import telemetry
from taskscope_alerts.expression import enclosed, risen
from taskscope_alerts.rule import Alert
from taskscope_alerts.ticket import ticket

__all__ = ["telemetry_alerts"]


def telemetry_alerts(catalogue: Catalogue) -> tuple[Alert, ...]:
    """Every alert about what the boards do not see."""
    return (_library(catalogue), _overflow(catalogue), _skipped(catalogue))


def _library(catalogue: Catalogue) -> Alert:
    component, error = LIBRARY_ERRORS.label_names
    # Those without an exception's name are there from the start, at 0.
    named = selector(catalogue, LIBRARY_ERRORS, matchers=(f'{error}!="none"',))
    rise = risen(selector(catalogue, LIBRARY_ERRORS), "10m", born=named)
    return ticket(
        catalogue,
        LIBRARY_ERRORS,
        name="TelemetryFailing",
        expr=f"sum by ({component}) {enclosed(rise)}",
        summary=f"the telemetry itself fails in {{{{ $labels.{component} }}}}",
        description=(
            f'About {{{{ $value | printf "%.0f" }}}} errors in 10 minutes inside {{{{ $labels.{component} }}}} were '
            "kept from the requests. Users are served, but what that part would have told is missing."
        ),
        runbook=telemetry.library(catalogue),
    )


def _overflow(catalogue: Catalogue) -> Alert:
    metric, label = OVERFLOWED.label_names
    rise = risen(selector(catalogue, OVERFLOWED), "10m")
    return ticket(
        catalogue,
        OVERFLOWED,
        name="LabelOverflow",
        expr=f"sum by ({metric}, {label}) {enclosed(rise)}",
        summary=f"label {{{{ $labels.{label} }}}} of {{{{ $labels.{metric} }}}} has outgrown its bound",
        description=(
            f'At least {{{{ $value | printf "%.0f" }}}} observations of {{{{ $labels.{metric} }}}} in 10 minutes were '
            f"counted under {OVERFLOW}, because label {{{{ $labels.{label} }}}} had no room for their value. Totals "
            "stay right; what the label tells apart does not."
        ),
        runbook=telemetry.overflow(catalogue),
        board="runtime",
    )


def _skipped(catalogue: Catalogue) -> Alert:
    (reason,) = FILES_SKIPPED.label_names
    return ticket(
        catalogue,
        FILES_SKIPPED,
        name="WorkerFilesSkipped",
        expr=f"sum by ({reason}) (increase({selector(catalogue, FILES_SKIPPED)}[10m])) > 0",
        summary=f"a file of the workers is left out of the metrics, reason {{{{ $labels.{reason} }}}}",
        description=(
            'About {{ $value | printf "%.0f" }} files in the workers\' folder could not be read in the last 10 minutes '
            f"({{{{ $labels.{reason} }}}}) and are left out of every answer to Prometheus. What such a worker counted "
            "is missing; the log line names the file."
        ),
        runbook=telemetry.skipped(catalogue),
        board="runtime",
    )
