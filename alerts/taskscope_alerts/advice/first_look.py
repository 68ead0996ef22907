"""Looks that several runbooks share: the log search, the youngest process, one instance against its siblings."""

from __future__ import annotations

import json

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import PROCESS_CPU, PROCESS_START_TIME
from taskscope.catalogue.promql import escape, selector
from taskscope_alerts.advice.addresses import LOGIN
from taskscope_alerts.runbook import Step

__all__ = [
    "add_instance",
    "containers",
    "doctor",
    "log_lines",
    "log_template",
    "processor",
    "psql",
    "restart",
    "roll_back",
    "targets",
    "youngest",
]


def log_lines(
    catalogue: Catalogue, text: str, *, levels: tuple[str, ...], slowest: bool = False
) -> Step:
    """A search of the service's log lines in Elasticsearch, newest or slowest first."""
    order = (
        {"event.duration": {"order": "desc", "unmapped_type": "long"}}
        if slowest
        else {"@timestamp": {"order": "desc"}}
    )
    query = {
        "size": 20,
        "sort": [order],
        "query": {
            "bool": {
                "filter": [
                    {"term": {"service.name": catalogue.service}},
                    {"terms": {"log.level": list(levels)}},
                    {"range": {"@timestamp": {"gte": "now-15m"}}},
                ]
            }
        },
    }
    code = (
        f'curl -sS {LOGIN} "$ELASTICSEARCH_URL/logs-{catalogue.service}-*/_search?pretty" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps(query)}'"
    )
    return Step(
        text=f"{text} `trace.id` of a line leads to all lines of that request.",
        code=code,
        language="sh",
    )


def youngest(catalogue: Catalogue) -> Step:
    """How long each process has been running: a deploy or a restart shows here first."""
    return Step(
        text="Was something deployed or restarted? Seconds since each process started; "
        "younger than the trouble means that the release, or what restarted it, is the first suspect.",
        code=f"time() - {selector(catalogue, PROCESS_START_TIME)}",
        language="promql",
    )


def processor(catalogue: Catalogue) -> Step:
    """Processor cores used by each process."""
    return Step(
        text="Is the processor the limit? Cores used by each process; a Python process stops near 1.",
        code=f"sum by (instance) (rate({selector(catalogue, PROCESS_CPU)}[5m]))",
        language="promql",
    )


def targets(job: str, text: str) -> Step:
    """Which instances Prometheus reaches."""
    return Step(text=text, code=f'up{{job="{escape(job)}"}}', language="promql")


def log_template(text: str) -> Step:
    """Put the templates of the log streams again."""
    return Step(
        text=text,
        code='ELASTICSEARCH_USERNAME="${ELASTICSEARCH_ADMIN%%:*}" \\\n'
        '  ELASTICSEARCH_PASSWORD="${ELASTICSEARCH_ADMIN#*:}" taskscope logs setup\n'
        "docker compose run --rm logs-setup   # containers: this instead; it sets the logins of .env as well",
        language="sh",
    )


def psql(text: str, statement: str) -> Step:
    """Ask PostgreSQL, as its container reaches it."""
    return Step(
        text=f"{text} A server elsewhere: the same by `psql` and its own address; SQLite has nothing to ask.",
        code=f'echo "{statement}" | docker compose exec -T postgres \\\n'
        """  sh -c 'PGPASSWORD="$POSTGRES_PASSWORD" psql -U "$POSTGRES_USER"'""",
        language="sh",
    )


def containers(text: str) -> Step:
    """What runs, and what it last said."""
    return Step(
        text=text,
        code="docker compose ps --all\ndocker compose logs --since 15m --tail 100 NAME",
        language="sh",
    )


def restart(text: str) -> Step:
    """Start one part again."""
    return Step(text=text, code="docker compose restart NAME", language="sh")


def roll_back(text: str) -> Step:
    """Go back to the image that ran before."""
    return Step(
        text=text,
        code="git log --oneline -5 -- docker-compose.yml   # the version that ran before\n"
        "docker compose up -d --no-deps NAME            # after setting its image back",
        language="sh",
    )


def add_instance(text: str) -> Step:
    """One more instance behind the proxy."""
    return Step(
        text=f"{text} It is one more service in docker-compose.yml, its line in the proxy's list of upstreams, "
        "and its address in Prometheus' target list.",
        code="docker compose up -d NAME\ndocker compose exec proxy nginx -s reload",
        language="sh",
    )


def doctor() -> Step:
    """What the local stack says of itself."""
    return Step(
        text="On a local stack without containers: the fault and its remedy in one sentence. Ctrl-C and "
        "`taskscope up` start every part again; what was stored is kept.",
        code="taskscope doctor",
        language="sh",
    )
