"""Panels about queues: how old messages are, how often they come again, what becomes of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskscope.catalogue import Catalogue, Match
from taskscope.catalogue.groups import (
    JOB_AGE,
    JOB_DELIVERED,
    JOB_DURATION,
    JOB_PUBLISH_DURATION,
    JOB_PUBLISHED,
    JOB_SETTLED,
)
from taskscope_dashboards.boards.dependencies import declared, labelled
from taskscope_dashboards.layout import spread
from taskscope_dashboards.panel import Panel, Query, Step, unit_of
from taskscope_dashboards.queries import per_second, quantile, share

__all__ = ["jobs"]

_P95: Final = Decimal("0.95")
_ERROR: Final = Match(label="outcome", values=("error",))


def jobs(catalogue: Catalogue) -> tuple[Panel, ...]:
    """Whether messages move: how old they are, how often they come again, what becomes of them."""
    delivery = (
        (JOB_AGE, _age(catalogue)),
        (JOB_DELIVERED, _redelivered(catalogue)),
        (JOB_DURATION, _handlers_fail(catalogue)),
        (JOB_DURATION, _handlers_time(catalogue)),
    )
    flow = (
        (JOB_PUBLISHED, _published(catalogue)),
        (JOB_PUBLISH_DURATION, _confirmed(catalogue)),
        (JOB_DELIVERED, _delivered(catalogue)),
        (JOB_SETTLED, _settled(catalogue)),
    )
    return spread(declared(catalogue, (*delivery, *flow)), per_line=4, height=7)


def _age(catalogue: Catalogue) -> Panel:
    queue = JOB_AGE.label_names
    return Panel(
        title="Age at delivery, p95",
        description=(
            "How old one message in twenty is, or older, when it is delivered: what users wait for. A rise: consumers "
            "are too few, too slow or stuck; add some, then see which handler takes long."
        ),
        unit=unit_of(JOB_AGE),
        queries=(
            Query(expr=quantile(catalogue, JOB_AGE, _P95, by=queue), legend=labelled(*queue)),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal(60))),
    )


def _redelivered(catalogue: Catalogue) -> Panel:
    queue = JOB_DELIVERED.label_names[:1]
    again = Match(label="redelivered", values=("true",))
    return Panel(
        title="Redelivery ratio",
        description=(
            "Share of deliveries that are not the first. A steady share: a message that always fails goes round and "
            "round; dead-letter it. A spike: consumers died with messages in hand."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(catalogue, JOB_DELIVERED, again, by=queue),
                legend=labelled(*queue),
            ),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.05"))),
    )


def _handlers_fail(catalogue: Catalogue) -> Panel:
    queue = JOB_DURATION.label_names[:1]
    return Panel(
        title="Handlers that fail",
        description=(
            "Share of messages whose handler raised. Read the lines of the queue's handler; what it calls is most "
            "often the cause."
        ),
        unit="percentunit",
        queries=(
            Query(
                expr=share(catalogue, JOB_DURATION, _ERROR, by=queue),
                legend=labelled(*queue),
            ),
        ),
        steps=(Step(colour="green"), Step(colour="red", above=Decimal("0.01"))),
    )


def _handlers_time(catalogue: Catalogue) -> Panel:
    queue = JOB_DURATION.label_names[:1]
    return Panel(
        title="Handler time, p95",
        description=(
            "What one message in twenty takes longer than. With the rate of deliveries it says how many consumers are "
            "needed: rate times time."
        ),
        unit=unit_of(JOB_DURATION),
        queries=(
            Query(expr=quantile(catalogue, JOB_DURATION, _P95, by=queue), legend=labelled(*queue)),
        ),
    )


def _published(catalogue: Catalogue) -> Panel:
    queue, outcome = JOB_PUBLISHED.label_names
    return Panel(
        title="Published per second",
        description=(
            "Messages that were published, by destination and outcome. Errors: the broker refuses or does not answer; "
            "what was not published waits in the service or is lost."
        ),
        unit="suffix: /s",
        queries=(
            Query(
                expr=per_second(catalogue, JOB_PUBLISHED, by=(queue, outcome)),
                legend=labelled(queue, outcome),
            ),
        ),
    )


def _confirmed(catalogue: Catalogue) -> Panel:
    queue = JOB_PUBLISH_DURATION.label_names
    return Panel(
        title="Time to the broker's confirmation, p95",
        description=(
            "How long one publisher in twenty waits, or longer, for the broker. It is added to the request's own time: "
            "a rise is the broker's disk, its flow control, or the network."
        ),
        unit=unit_of(JOB_PUBLISH_DURATION),
        queries=(
            Query(
                expr=quantile(catalogue, JOB_PUBLISH_DURATION, _P95, by=queue),
                legend=labelled(*queue),
            ),
        ),
    )


def _delivered(catalogue: Catalogue) -> Panel:
    queue = JOB_DELIVERED.label_names[:1]
    return Panel(
        title="Delivered per second",
        description=(
            "Messages that consumers were given. Below what is published for long: the queue grows; see its age."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, JOB_DELIVERED, by=queue), legend=labelled(*queue)),
        ),
    )


def _settled(catalogue: Catalogue) -> Panel:
    result = JOB_SETTLED.label_names[1]
    return Panel(
        title="Settled per second",
        description=(
            "Messages by how consumers settled them. requeue: they come again, see the redelivery ratio; dead_letter: "
            "look into that queue, nobody else does."
        ),
        unit="suffix: /s",
        queries=(
            Query(expr=per_second(catalogue, JOB_SETTLED, by=(result,)), legend=labelled(result)),
        ),
        stacked=True,
        colours=(("ack", "green"), ("requeue", "yellow"), ("dead_letter", "red")),
    )
