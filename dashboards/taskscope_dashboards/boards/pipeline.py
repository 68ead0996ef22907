"""Panels of the way of a line: what waits, what was lost, what is sent again, and whether the counts are right."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    AUDIT_FAILED,
    AUDIT_LINES,
    COLLECTOR_DURATION,
    COLLECTOR_LAG,
    COLLECTOR_REQUESTS,
    COLLECTOR_UP,
    LOG_BATCH_DURATION,
    LOG_DEAD_LETTERS,
    LOG_DISCARDED,
    LOG_IN_DOUBT,
    LOG_LEFT_OUT,
    LOG_RETRIES,
    SPOOL_LIMIT,
    SPOOL_SIZE,
)
from taskscope.catalogue.promql import escape, selector
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Panel, Query, Step, View, unit_of
from taskscope_dashboards.queries import per_second, quantile, value

__all__ = ["arrival", "counting"]

_P95: Final = Decimal("0.95")
_ANY: Final = (Step(colour="green"), Step(colour="red", above=Decimal("0.001")))


def arrival(catalogue: Catalogue) -> tuple[Panel, ...]:
    """What there is beyond the on-call board's panels: the spool's bound, what is left out, what the server refuses."""
    return spread(
        (
            _fullness(catalogue),
            _left_out(catalogue),
            _dead(catalogue),
            _refused(catalogue),
            _answers(catalogue),
            _in_doubt(catalogue),
            _audit(catalogue),
        ),
        per_line=3,
        height=7,
    )


def _fullness(catalogue: Catalogue) -> Panel:
    waiting = value(catalogue, SPOOL_SIZE, operator="max")
    bound = value(catalogue, SPOOL_LIMIT, operator="max")
    return Panel(
        title="Spool in use",
        description=(
            "Bytes that wait against the most that the spool may hold. Above 80 % lines below warning are soon "
            "dropped, at 100 % all: bring Elasticsearch back, or raise TASKSCOPE_SPOOL_MAX_BYTES."
        ),
        unit="percentunit",
        maximum=Decimal(1),
        queries=(Query(expr=f"{waiting} / ({bound} > 0)", legend="in use"),),
        steps=(
            Step(colour="green"),
            Step(colour="orange", above=Decimal("0.5")),
            Step(colour="red", above=Decimal("0.8")),
        ),
    )


def _left_out(catalogue: Catalogue) -> Panel:
    reason, level = LOG_LEFT_OUT.label_names
    return Panel(
        title="Lines left out on purpose, per second",
        description=(
            "Lines that a rate limit or the sample kept out of the spool, by reason and level. rate_limit on error: "
            "one event repeats; its line tells how often."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, LOG_LEFT_OUT, by=(reason, level)),
                legend=f"{{{{{reason}}}}} {{{{{level}}}}}",
            ),
        ),
        stacked=True,
    )


def _dead(catalogue: Catalogue) -> Panel:
    labels = LOG_DEAD_LETTERS.label_names
    legend = " ".join(f"{{{{{label}}}}}" for label in labels) or "dead letters"
    return Panel(
        title="Dead letters per second",
        description=(
            "Lines that Elasticsearch can never take as they are, by its kind of error. They lie on disk with the "
            "reason: correct the log call or the mapping, then run taskscope logs replay. No room: the file has 32 MiB."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, LOG_DEAD_LETTERS, by=labels), legend=legend),
            Query(expr=per_second(catalogue, LOG_DISCARDED), legend="no room: discarded"),
        ),
        steps=_ANY,
    )


def _audit(catalogue: Catalogue) -> Panel:
    outcome, reason = AUDIT_LINES.label_names[0], AUDIT_FAILED.label_names[0]
    return Panel(
        title="Audit lines per second",
        description=(
            "Lines of the audit trail, by the outcome of what they tell, and those that could not be stored, by "
            "reason. A rise of failure: somebody tries passwords; read its lines. Not stored: who did what in that "
            "time is not known, so free the disk or mend the folder at once."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, AUDIT_LINES, by=(outcome,)),
                legend=f"{{{{{outcome}}}}}",
            ),
            Query(
                expr=per_second(catalogue, AUDIT_FAILED, by=(reason,)),
                legend=f"not stored: {{{{{reason}}}}}",
            ),
        ),
    )


def _refused(catalogue: Catalogue) -> Panel:
    matcher = 'reason=~"overloaded|refused"'
    return Panel(
        title="Elasticsearch's refusals per second",
        description=(
            "Batches that Elasticsearch answered with a refusal, all reasons together. It takes too much or too "
            "little: see its disk, its load and its rights before the shipper's."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, LOG_RETRIES, by=("instance",), matchers=(matcher,)),
                legend="{{instance}}",
            ),
        ),
        steps=_ANY,
    )


def _answers(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Time of a batch, p95",
        description=(
            "From a bulk request to its answer. Near the time-out of 10 s batches are given up, go again in smaller "
            "ones, and are in doubt: Elasticsearch is too slow, or the way to it."
        ),
        unit=unit_of(LOG_BATCH_DURATION),
        queries=(Query(expr=quantile(catalogue, LOG_BATCH_DURATION, _P95), legend="p95"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(5))),
    )


def _in_doubt(catalogue: Catalogue) -> Panel:
    (result,) = LOG_IN_DOUBT.label_names
    return Panel(
        title="Lines in doubt per second",
        description=(
            "Lines whose answer was lost, and what asking for their ids said. unknown: the login may not ask, and a "
            "rollover came between, so they may be stored twice: name checker.key in ELASTICSEARCH_CHECK_KEY_FILE."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, LOG_IN_DOUBT, by=(result,)), legend=f"{{{{{result}}}}}"
            ),
        ),
        stacked=True,
    )


def counting(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether what the board counts is what there is, and what it costs."""
    return spread(
        (
            _connected(catalogue),
            _behind(catalogue),
            _cost(catalogue),
            _look(catalogue),
            _rules(catalogue),
        ),
        per_line=3,
        height=7,
    )


def _connected(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Stored lines are counted",
        description=(
            "Yes while a collector counts what is in Elasticsearch. No: the panels above end where it stopped, nothing "
            "is lost, and it catches up by itself; look at its log and at Elasticsearch."
        ),
        unit="bool_yes_no",
        view=View.STAT,
        queries=(Query(expr=f"max({selector(catalogue, COLLECTOR_UP)})", legend="counted"),),
        steps=(Step(colour="red"), Step(colour="green", above=Decimal(1))),
    )


def _behind(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Lines not counted yet",
        description=(
            "Lines in Elasticsearch that the counts above do not hold yet: those of the last half minute. A steady "
            "rise: its searches are too slow for what comes in; see the time of a look."
        ),
        unit=unit_of(COLLECTOR_LAG),
        queries=(
            Query(expr=value(catalogue, COLLECTOR_LAG, operator="max"), legend="not counted"),
        ),
    )


def _cost(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Collector's requests per second",
        description=(
            "What counting asks of Elasticsearch: two requests for each look that finds lines, one for each that finds "
            "none. More: several collectors run."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, COLLECTOR_REQUESTS, by=("instance",)),
                legend="{{instance}}",
            ),
        ),
    )


def _look(catalogue: Catalogue) -> Panel:
    return Panel(
        title="Time of a look, p95",
        description=(
            "How long one look at the new lines takes. Above a second: Elasticsearch is slow for everybody; look at "
            "its load first, then give the collector a longer pause."
        ),
        unit=unit_of(COLLECTOR_DURATION),
        queries=(Query(expr=quantile(catalogue, COLLECTOR_DURATION, _P95), legend="p95"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(5))),
    )


def _rules(catalogue: Catalogue) -> Panel:
    service = escape(catalogue.service)
    own = f'prometheus_rule_group_last_duration_seconds{{job="prometheus", rule_group=~".*;{service}-alerts-.*"}}'
    # The label begins with the file, which says nothing.
    named = f'label_replace({own}, "rule_group", "$1", "rule_group", ".*;(.+)")'
    return Panel(
        title="Evaluating the alert rules",
        description=(
            "How long each group of alert rules took the last time. Near 15 seconds alerts come late: Prometheus is "
            "too small, or a label has too many values."
        ),
        unit="s",
        queries=(Query(expr=f"max by (rule_group) ({named})", legend="{{rule_group}}"),),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(5))),
    )
