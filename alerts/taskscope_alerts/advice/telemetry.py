"""The words about the telemetry itself: its errors, labels that ran away, workers' files that cannot be read."""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    FILES_SKIPPED,
    LIBRARY_ERRORS,
    OVERFLOWED,
    SERIES,
    WORKERS,
)
from taskscope.catalogue.metric import OVERFLOW
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["library", "overflow", "skipped"]


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


def overflow(catalogue: Catalogue) -> Runbook:
    """A label took more values than its metric declares."""
    metric, label = OVERFLOWED.label_names
    rate = f"sum by (instance, {metric}, {label}) (rate({selector(catalogue, OVERFLOWED)}[5m]))"
    return Runbook(
        meaning=(
            "**Users notice nothing**, and no memory grows: that is what the bound is for. A metric was given a label "
            f"value beyond what it declares, and that observation was counted under `{OVERFLOW}`. Sums over all values "
            "stay right; a panel, an objective or an alert that picks single values sees too little."
        ),
        urgency=(
            "A ticket. Hurry only if an objective's metric is the one that is named: its alerts may then judge too few "
            "requests."
        ),
        look=(
            Step(
                text="Which metric and label, on which instance, how many a second?",
                code=rate,
                language="promql",
            ),
            Step(
                text="Does the process come near its whole bound of 10,000 label sets? Then any metric may be the one "
                "that overflows, and the one that grew is the cause.",
                code=selector(catalogue, SERIES),
                language="promql",
            ),
            first_look.log_lines(
                catalogue,
                "The library names metric and label once a minute.",
                levels=("warning", "error"),
            ),
            first_look.youngest(catalogue),
        ),
        causes=(
            "A label that takes its value from outside: an id, a name, a path, an address.",
            "A new value that the code uses and the catalogue does not list, since the last release.",
            "A bound that was right for last year's number of queues, caches or servers.",
            "Somebody tries names out, where a value comes from the request.",
        ),
        mitigate=(
            Step(
                text="A value that belongs there: add it to the label's `values`, or raise its `cap`, where the metric "
                "is declared."
            ),
            Step(
                text="A value from outside: drop the label or fold the value into a few kinds before it is counted; "
                "the id itself belongs into the log line, which `trace.id` joins with the metric's exemplar."
            ),
            Step(
                text="Try it before the release: `taskscope.testing.conformance` in the service's own tests names each "
                "label that leaves its declaration. Then `taskscope build`, for boards and rules read the same "
                "declaration.",
            ),
        ),
        resolves="Ten minutes after the last observation that was folded.",
    )


def skipped(catalogue: Catalogue) -> Runbook:
    """A file in the workers' folder cannot be read."""
    (reason,) = FILES_SKIPPED.label_names
    return Runbook(
        meaning=(
            "**Users are served.** The workers of one instance keep their series in files of one folder, and a file "
            "there could not be read. The answer to Prometheus goes on without it: what that worker counted is "
            "missing from rates and objectives, if it was a worker's file at all."
        ),
        urgency=(
            "A ticket. Count what is missing: the second query is below the number of workers that you started for as "
            "long as a living one is left out."
        ),
        look=(
            Step(
                text="On which instance, and why? `foreign` is another user's file, `not_regular` a link or a folder, "
                "`version` one of another release, `empty` and `garbage` what a full disk or a kill at start leaves.",
                code=f"sum by (instance, {reason}) (increase({selector(catalogue, FILES_SKIPPED)}[1h]))",
                language="promql",
            ),
            Step(
                text="Do all workers answer?", code=selector(catalogue, WORKERS), language="promql"
            ),
            first_look.log_lines(
                catalogue,
                "The library names the folder and the files.",
                levels=("warning", "error"),
            ),
            Step(
                text="Whose are they, and is the disk full? `TASKSCOPE_MULTIPROCESS_DIR` is the folder.",
                code='docker compose exec NAME sh -c \'ls -la "$TASKSCOPE_MULTIPROCESS_DIR"; df '
                '"$TASKSCOPE_MULTIPROCESS_DIR"\'',
                language="sh",
            ),
        ),
        causes=(
            "The folder is shared with another service, another user, or prometheus_client's own files.",
            "Its disk was full when a worker began.",
            "Two releases ran in one folder during a rollout.",
            "Somebody put something there: the folder should be readable and writable by the service alone.",
        ),
        mitigate=(
            Step(
                text="Remove the named file, unless a living worker of another release still writes it: then wait for "
                "the rollout to end."
            ),
            first_look.restart(
                "A living worker is left out: start the instance again; what its workers counted before is kept in "
                "their files."
            ),
            Step(
                text="Give each instance a folder of its own, mode 0700, on a disk that logs cannot fill; in "
                "containers a tmpfs. To try the alert: an empty file named like a worker's, on a stack of your own."
            ),
        ),
        resolves="Ten minutes after the last file was found; each is counted once, and again only if it changes.",
    )
