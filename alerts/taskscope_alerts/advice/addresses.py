"""What the runbooks' commands take from the shell: addresses, logins and the spool, for both kinds of stack.

A command that names `$ELASTICSEARCH_URL` is worth nothing at night to somebody who must first find out what it is.
"""

from __future__ import annotations

from typing import Final

from taskscope_alerts.runbook import Step

__all__ = ["ADMIN", "LOGIN", "STEPS", "VARIABLES"]

LOGIN: Final = '-u "$ELASTICSEARCH_LOGIN"'
"""For curl: who may search the logs."""
ADMIN: Final = '-u "$ELASTICSEARCH_ADMIN"'
"""For curl: who may change settings of the server."""

VARIABLES: Final = (
    "SERVICE_URL",
    "PROMETHEUS_URL",
    "ALERTMANAGER_URL",
    "ELASTICSEARCH_URL",
    "ELASTICSEARCH_LOGIN",
    "ELASTICSEARCH_ADMIN",
    "TASKSCOPE_SPOOL",
)
"""Every variable of the shell that a runbook's command may name; both steps set each."""

STEPS: Final = (
    Step(
        text="A stack that `taskscope up` started: in the folder it was started in.",
        code=(
            'at() { python3 -c \'import json, sys; print(json.load(open(".taskscope/run/stack.json"))["addresses"]'
            '[sys.argv[1]])\' "$1"; }\n'
            'export SERVICE_URL="$(at api)" PROMETHEUS_URL="$(at prometheus)" ALERTMANAGER_URL="$(at alertmanager)"\n'
            'export ELASTICSEARCH_URL="$(at elasticsearch)" TASKSCOPE_SPOOL=.taskscope/spool\n'
            'export ELASTICSEARCH_LOGIN="reader:$(cat .taskscope/secrets/elasticsearch_reader)"\n'
            'export ELASTICSEARCH_ADMIN="admin:$(cat .taskscope/secrets/elasticsearch_admin)"'
        ),
        language="sh",
    ),
    Step(
        text="A stack of containers: beside docker-compose.yml. Its spool is a volume: paste what reads the spool "
        "into `docker compose exec shipper sh`, which has `TASKSCOPE_SPOOL` set.",
        code=(
            ". ./.env\n"
            "export SERVICE_URL=http://127.0.0.1:8000 PROMETHEUS_URL=http://127.0.0.1:9090\n"
            "export ALERTMANAGER_URL=http://127.0.0.1:9093 ELASTICSEARCH_URL=http://127.0.0.1:9200\n"
            "export TASKSCOPE_SPOOL=/spool\n"
            'export ELASTICSEARCH_LOGIN="taskscope_reader:$ELASTICSEARCH_READER_PASSWORD"\n'
            'export ELASTICSEARCH_ADMIN="elastic:$ELASTIC_PASSWORD"'
        ),
        language="sh",
    ),
    Step(
        text="Any other: your own addresses. Over https with an authority of your own add `--cacert FILE` to curl; "
        'with an API key write `-H "Authorization: ApiKey …"` in place of `-u`.'
    ),
)
