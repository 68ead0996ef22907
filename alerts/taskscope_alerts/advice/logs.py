"""The words about the way of a log line: late, refused for good, lost, or not counted."""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import (
    AUDIT_FAILED,
    AUDIT_LINES,
    COLLECTOR_LAG,
    COLLECTOR_REQUESTS,
    COLLECTOR_UP,
    LOG_AGE,
    LOG_DEAD_LETTERS,
    LOG_DROPPED,
    LOG_LINES,
    LOG_RETRIES,
    LOG_SHIPPED,
    LOG_SHIPPER_UP,
    SPOOL_LIMIT,
    SPOOL_SIZE,
)
from taskscope.catalogue.promql import selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.advice.addresses import ADMIN
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["audit", "counts", "dead_letters", "dropped", "log_path", "spool"]

_READER: Final = (
    'ELASTICSEARCH_USERNAME="${ELASTICSEARCH_LOGIN%%:*}" \\\n'
    '  ELASTICSEARCH_PASSWORD="${ELASTICSEARCH_LOGIN#*:}" '
)

_ENGINE: Final = Step(
    text="Does Elasticsearch answer, and does it take writes? 401 or 403 is the login, 429 is overload, "
    "`red` or a read-only index is most often a full disk.",
    code=f'curl -sS -m 5 {ADMIN} "$ELASTICSEARCH_URL/_cluster/health?pretty"',
    language="sh",
)


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
            "`LogLinesDropped` tells; `LogSpoolSaturated` comes before it, at 80 %."
        ),
        look=_log_path_look(catalogue),
        causes=(
            "Elasticsearch is down or still starting.",
            "Its disk is over the flood stage, so indices are read-only.",
            "The API key or password expired or was revoked.",
            "The cluster has all the shards it may have, or the stream's index is closed: the shipper's log says so.",
            "It is overloaded (429): a large query, a merge, too little memory.",
            "A burst of lines, often debug level left on.",
        ),
        mitigate=_log_path_mitigate(),
        resolves=(
            "When Elasticsearch takes batches again and the oldest waiting line is younger than a minute. A backlog "
            "drains faster than it grew; no line is sent twice."
        ),
    )


def _log_path_look(catalogue: Catalogue) -> tuple[Step, ...]:
    return (
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
        Step(
            text="What do the lines say that wait? They are read from the spool, without Elasticsearch.",
            code="taskscope logs tail --from spool --level warning -n 50",
            language="sh",
        ),
    )


def _log_path_mitigate() -> tuple[Step, ...]:
    return (
        first_look.restart(
            "Start Elasticsearch again if it is down; the shipper resumes by itself."
        ),
        Step(
            text="Disk full: free space or drop old indices, then let it take writes again.",
            code=f'curl -sS {ADMIN} -X PUT "$ELASTICSEARCH_URL/_all/_settings" \\\n'
            '  -H "Content-Type: application/json" \\\n'
            "  -d '{\"index.blocks.read_only_allow_delete\": null}'",
            language="sh",
        ),
        first_look.log_template(
            "Login or template: put the template again, and write the right key or password into the shipper's file or "
            "environment; a file is read anew at each try, and what waits is sent then."
        ),
        first_look.doctor(),
    )


def dropped(catalogue: Catalogue) -> Runbook:
    """Lines are lost before they reach the spool."""
    return Runbook(
        meaning=(
            "Users are served, but lines of the log are being lost for good: the spool could not take them. An "
            "incident of this hour will be hard to explain afterwards."
        ),
        urgency=(
            "Every line counted here is gone. A page where lines of level error or critical are among them: what "
            "happens now cannot be explained afterwards. A ticket for the levels below, which are dropped first. "
            "Metrics, alerts and traces are not touched, and failed requests are still counted there."
        ),
        look=_dropped_look(catalogue),
        causes=(
            "`spool_full`: the shipper is down or Elasticsearch has been away for long.",
            "`spool_full` too: refused lines fill it (LogLinesRefused); move `dead-letters.ndjson` out of the spool.",
            "`dead_letters_full`: refused lines have filled their file; replay or move them (LogLinesRefused).",
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


def _dropped_look(catalogue: Catalogue) -> tuple[Step, ...]:
    return (
        Step(
            text="How many a second, for which reason, of which level, on which instance?",
            code=f"sum by (instance, {', '.join(LOG_DROPPED.label_names)}) "
            f"(rate({selector(catalogue, LOG_DROPPED)}[5m]))",
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
    )


def audit(catalogue: Catalogue) -> Runbook:
    """Audit lines are not stored."""
    return Runbook(
        meaning=(
            "Users are served, but who logs in, or changes what, leaves no trace that lasts. Where the service asks "
            "for it (`required`), what may not be done without a trace is refused instead."
        ),
        urgency=(
            "At once: what happens now cannot be found out later, and an attacker may have filled the disk for just "
            "that. `not_synced` alone is milder: those lines are lost only if the machine goes down now."
        ),
        look=(
            Step(
                text="How many a second, for which reason, on which instance, and how many are stored?",
                code=f"sum by (instance, {AUDIT_FAILED.label_names[0]}) "
                f"(rate({selector(catalogue, AUDIT_FAILED)}[5m]))\n"
                f"sum by (instance) (rate({selector(catalogue, AUDIT_LINES)}[5m]))",
                language="promql",
            ),
            Step(
                text="Is the disk full, or the folder not the service's own? Audit lines have a folder, a bound and a "
                "key of their own.",
                code='df -h "$TASKSCOPE_SPOOL/audit"\nls -ld "$TASKSCOPE_SPOOL/audit"\n'
                'ls -l "$TASKSCOPE_SPOOL/audit"',
                language="sh",
            ),
            Step(
                text="`spool_full`: is nobody shipping them? The shipper takes both folders; see "
                "LogShipperDisconnected. Does its login have the audit stream?",
                code=selector(catalogue, LOG_SHIPPER_UP),
                language="promql",
            ),
        ),
        causes=(
            "`disk_full`: something else on the disk, or somebody who fills it.",
            "`spool_full`: Elasticsearch or the shipper has been away for long, or its key has no audit stream.",
            "`write_error`: the folder or `audit.key` belongs to another user, or others may read the key.",
            "`encode_error`: a value that cannot be written as JSON; the library's own line names it.",
            "`not_synced`: the disk answers with errors; replace it.",
        ),
        mitigate=(
            Step(text="Free the disk; nothing needs a restart, the next line is stored."),
            Step(
                text="Bring Elasticsearch and the shipper back (runbook LogShipperDisconnected), or raise "
                "`TASKSCOPE_AUDIT_MAX_BYTES` and restart the instances one after another."
            ),
            Step(
                text="Afterwards: is what is there untouched? Each break is told with its place.",
                code="taskscope logs verify --since 24h",
                language="sh",
            ),
            first_look.doctor(),
        ),
        resolves="Ten minutes after the last line that could not be stored.",
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
            "A template `logs-*@custom` of your own maps a field otherwise, or names a pipeline that fails.",
            "A line that another program wrote into the spool: `damaged_line`.",
        ),
        mitigate=(
            first_look.log_template(
                "Put the template of this version again; it takes effect with the next backing index."
            ),
            Step(text="Correct the log call that sends the odd type, or rename its key."),
        ),
        resolves="Ten minutes after the last line was refused.",
    )


def spool(catalogue: Catalogue) -> Runbook:
    """The room for lines that wait is nearly used up."""
    size, bound = selector(catalogue, SPOOL_SIZE), selector(catalogue, SPOOL_LIMIT)
    return Runbook(
        meaning=(
            "Users are served, and nothing is lost yet. Lines wait on the service's own disk because they are not "
            "stored, or not as fast as they come, and their room is nearly full."
        ),
        urgency=(
            "Soon: the second query is the seconds that are left at this rate. Then lines below warning are dropped, "
            "and at the bound all; `LogLinesDropped` tells of both."
        ),
        look=(
            Step(
                text="How full, and for how long still? Below 0: it empties, and there is nothing to do but wait.",
                code=f"max({size}) / max({bound})\n"
                f"(max({bound}) - max({size})) / max(deriv({size}[10m]))",
                language="promql",
            ),
            *_log_path_look(catalogue),
            Step(
                text="Or is it dead letters, which count too?",
                code='ls -l "$TASKSCOPE_SPOOL"',
                language="sh",
            ),
        ),
        causes=(
            "Elasticsearch is down, overloaded or refuses the login: LogShipperDisconnected tells which.",
            "A burst of lines: a loop that logs, or debug level left on.",
            "The shipper is down: TargetDown names its job.",
        ),
        mitigate=(
            Step(
                text="Make room first: a larger bound holds longer. Set `TASKSCOPE_SPOOL_MAX_BYTES` and restart the "
                "instances one after another, if the disk has the room.",
                code='df -h "$TASKSCOPE_SPOOL"',
                language="sh",
            ),
            *_log_path_mitigate(),
        ),
        resolves="When less than 80 % of the room is in use. A backlog drains faster than it grew.",
    )


def counts(catalogue: Catalogue) -> Runbook:
    """The lines in Elasticsearch are not counted."""
    return Runbook(
        meaning=(
            "Users are served, and lines are stored: it is only their counts that are missing. The panels of stored "
            "lines, exceptions and error lines by route end where the trouble began."
        ),
        urgency=(
            "A ticket. Nothing is lost: when the collector looks again, it counts what came meanwhile, as one burst. "
            "Requests, burn rates and all other alerts do not use these series."
        ),
        look=(
            Step(
                text="Connected or not, lines that wait to be counted, requests a second.",
                code="\n".join(
                    (
                        selector(catalogue, COLLECTOR_UP),
                        selector(catalogue, COLLECTOR_LAG),
                        f"rate({selector(catalogue, COLLECTOR_REQUESTS)}[5m])",
                    )
                ),
                language="promql",
            ),
            _ENGINE,
            Step(
                text="Count by hand meanwhile, straight from Elasticsearch.",
                code=_READER + "taskscope logs top --by exception --since 1h",
                language="sh",
            ),
        ),
        causes=(
            "Elasticsearch is down or overloaded: then LogShipperDisconnected fires too.",
            "The collector's login has expired, or lacks `monitor` on the stream (403 in its log).",
            "Its folder cannot be written: the disk is full, or belongs to another user.",
        ),
        mitigate=(
            Step(
                text="The collector's log says in one sentence what it lacks; it goes on by itself once that is mended."
            ),
            first_look.restart(
                "If its process hangs, start it again; it goes on where it stopped."
            ),
            first_look.doctor(),
        ),
        resolves="When a look at the new lines goes well again.",
    )
