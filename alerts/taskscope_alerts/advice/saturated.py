"""The words about what is full, late or lost: the pool, file descriptors, the log path, the library itself."""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    ACTIVE_REQUESTS,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    LIBRARY_ERRORS,
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DROPPED,
    LOG_LINES,
    LOG_RETRIES,
    LOG_SHIPPED,
    LOG_SHIPPER_UP,
    PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS,
    SPOOL_SIZE,
)
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["dead_letters", "descriptors", "dropped", "library", "log_path", "pool"]

_ENGINE: Final = Step(
    text="Does Elasticsearch answer, and does it take writes? 401 or 403 is the key, 429 is overload, "
    "`red` or a read-only index is most often a full disk.",
    code='curl -sS -m 5 --cacert "$ELASTICSEARCH_CA_CERT" \\\n'
    '  -H "Authorization: ApiKey $ELASTICSEARCH_API_KEY" "$ELASTICSEARCH_URL/_cluster/health?pretty"',
    language="sh",
)


def pool(catalogue: Catalogue) -> Runbook:
    """The database pool is nearly all in use."""
    service = escape(catalogue.service)
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
        look=(
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
            Step(
                text="What do the connections do? In PostgreSQL: long or `idle in transaction` is the culprit.",
                code='psql "$DATABASE_URL" -c "select pid, state, now() - xact_start as open_for, left(query, 80) '
                "from pg_stat_activity where state <> 'idle' order by xact_start limit 20\"",
                language="sh",
            ),
            first_look.log_lines(
                catalogue,
                "Do requests already wait in vain?",
                levels=("warning", "error", "critical"),
            ),
        ),
        causes=(
            "A slow query, often a new one or one whose table has grown.",
            "More traffic than the pool was sized for.",
            "A transaction left open while something else is awaited, such as a call to another service.",
            "A connection leak: use never falls, not even at night.",
        ),
        mitigate=(
            Step(
                text="End the query or the idle transaction that holds the connections.",
                code='psql "$DATABASE_URL" -c "select pg_terminate_backend(PID)"',
                language="sh",
            ),
            first_look.add_instance(
                "Traffic: add an instance, as long as all pools together stay below the server's `max_connections`."
            ),
            first_look.restart(
                "Leak: restart that instance, then file the leak; it will come back."
            ),
        ),
        resolves="At the first evaluation with at most 90 % in use.",
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


def log_path(catalogue: Catalogue) -> Runbook:
    """Lines do not reach Elasticsearch, or late."""
    return Runbook(
        meaning=(
            "Users are served, and nothing is lost yet. Log lines wait in the spool on the service's own disk instead "
            "of being in Elasticsearch, so the logs board and every search end where the trouble began."
        ),
        urgency=(
            "Until the spool is full. Seconds left = (its bound − its size) ÷ its growth, with the bound in "
            "`TASKSCOPE_SPOOL_MAX_BYTES` (256 MiB unless set). After that new lines are lost, which "
            "`LogLinesDropped` tells."
        ),
        look=(
            Step(
                text="Does it move? Connected or not, age of the oldest line in seconds, bytes waiting and their "
                "growth a second, lines stored a second.",
                code="\n".join(
                    (
                        selector(catalogue, LOG_SHIPPER_UP),
                        selector(catalogue, LOG_AGE),
                        selector(catalogue, SPOOL_SIZE),
                        f"deriv({selector(catalogue, SPOOL_SIZE)}[10m])",
                        f"rate({selector(catalogue, LOG_SHIPPED)}[5m])",
                    )
                ),
                language="promql",
            ),
            Step(
                text="Why are batches sent again? `unreachable` is network or a dead server, `overloaded` its load, "
                "`refused` the key or the template.",
                code=f"sum by (reason) (rate({selector(catalogue, LOG_RETRIES)}[5m]))",
                language="promql",
            ),
            _ENGINE,
            Step(
                text="Or simply more lines than usual? A loop that logs shows here, by level.",
                code=f"sum by ({LOG_LINES.label_names[0]}) (rate({selector(catalogue, LOG_LINES)}[5m]))",
                language="promql",
            ),
        ),
        causes=(
            "Elasticsearch is down or still starting.",
            "Its disk is over the flood stage, so indices are read-only.",
            "The API key expired or was revoked.",
            "It is overloaded (429): a large query, a merge, too little memory.",
            "A burst of lines, often debug level left on.",
        ),
        mitigate=(
            first_look.restart(
                "Start Elasticsearch again if it is down; the shipper resumes by itself."
            ),
            Step(
                text="Disk full: free space or drop old indices, then let it take writes again.",
                code='curl -sS --cacert "$ELASTICSEARCH_CA_CERT" -X PUT "$ELASTICSEARCH_URL/_all/_settings" \\\n'
                '  -H "Authorization: ApiKey $ELASTICSEARCH_API_KEY" -H "Content-Type: application/json" \\\n'
                "  -d '{\"index.blocks.read_only_allow_delete\": null}'",
                language="sh",
            ),
            Step(
                text="Key or template: lay the template again and give the shipper a new key; what waits is sent then.",
                code="taskscope logs setup",
                language="sh",
            ),
            first_look.doctor(),
        ),
        resolves=(
            "When Elasticsearch takes batches again and the oldest waiting line is younger than a minute. A backlog "
            "drains faster than it grew; no line is sent twice."
        ),
    )


def dropped(catalogue: Catalogue) -> Runbook:
    """Lines are lost before they reach the spool."""
    return Runbook(
        meaning=(
            "Users are served, but lines of the log are being lost for good: the spool could not take them. An "
            "incident of this hour will be hard to explain afterwards."
        ),
        urgency=(
            "Every line counted here is gone, so mend it today. Metrics, alerts and traces are not touched, and "
            "errors are still counted there."
        ),
        look=(
            Step(
                text="How many a second, for which reason, on which instance?",
                code=f"sum by (instance, reason) (rate({selector(catalogue, LOG_DROPPED)}[5m]))",
                language="promql",
            ),
            Step(
                text="`spool_full`: is nobody emptying it? See LogShipperDisconnected and LogDeliveryDelayed first.",
                code=f"{selector(catalogue, SPOOL_SIZE)}\n{selector(catalogue, LOG_SHIPPER_UP)}",
                language="promql",
            ),
            Step(
                text="`write_error`: is the disk full, read-only or broken?",
                code='df -h "$TASKSCOPE_SPOOL"\ntouch "$TASKSCOPE_SPOOL/.try" && rm "$TASKSCOPE_SPOOL/.try"\n'
                "dmesg --level=err,warn | tail -20",
                language="sh",
            ),
        ),
        causes=(
            "`spool_full`: the shipper is down or Elasticsearch has been away for long.",
            "`write_error`: the disk is full, read-only, or the folder belongs to another user.",
            "`encode_error`: the code logs a value that cannot be written as JSON; the library's own line names it.",
        ),
        mitigate=(
            Step(
                text="Empty the spool: bring Elasticsearch and the shipper back (runbook LogShipperDisconnected)."
            ),
            Step(
                text="Or make room: free the disk, or raise `TASKSCOPE_SPOOL_MAX_BYTES` and restart the instances "
                "one after another."
            ),
            first_look.doctor(),
        ),
        resolves="Ten minutes after the last line was lost.",
    )


def dead_letters(catalogue: Catalogue) -> Runbook:
    """Elasticsearch refuses lines for good."""
    return Runbook(
        meaning=(
            "Elasticsearch answered single lines with a 400: they can never be stored as they are. They lie in the "
            "dead-letter file beside the spool, so nothing is lost, but no search finds them."
        ),
        urgency="A ticket: the rest goes through. It is most often one field, and it hits every line that has it.",
        look=(
            Step(
                text="How many a second, against those that are stored?",
                code=f"sum(rate({selector(catalogue, LOG_DEAD_LETTERS)}[10m]))\n"
                f"sum(rate({selector(catalogue, LOG_SHIPPED)}[10m]))",
                language="promql",
            ),
            Step(
                text="Which lines, and what did Elasticsearch say of them? Each letter has its reason beside it.",
                code='tail -n 3 "$TASKSCOPE_SPOOL/dead-letters.ndjson"',
                language="sh",
            ),
            first_look.youngest(catalogue),
        ),
        causes=(
            "A field has changed its type, for example a number that became an object, since the last release.",
            "The index template was not laid, so the first line of the day decided the types.",
            "More fields than the index allows: a key made of a value, such as an id.",
        ),
        mitigate=(
            Step(
                text="Lay the template of this version again; it takes effect with the next backing index.",
                code="taskscope logs setup",
                language="sh",
            ),
            Step(text="Correct the log call that sends the odd type, or rename its key."),
        ),
        resolves="Ten minutes after the last line was refused.",
    )


def library(catalogue: Catalogue) -> Runbook:
    """The telemetry itself raises errors."""
    component = LIBRARY_ERRORS.label_names[0]
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
        look=(
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
        ),
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
