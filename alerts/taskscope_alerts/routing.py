"""Who hears of what: the configuration of Alertmanager, valid from 0.25 on.

Pages go to `page`, tickets to `ticket`; the watchdog has no severity and is routed by its name to `watchdog`. One
incident is one notification, and a ticket is silent while the page of the same objective fires.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from taskscope_alerts.rule import WATCHDOG, RuleError
from taskscope_alerts.severity import Severity

__all__ = ["RECEIVERS", "alertmanager"]

RECEIVERS: Final = ("page", "ticket", "watchdog")


def alertmanager(*, webhook: str | None = None) -> dict[str, object]:
    """The configuration as plain values, ready for YAML.

    webhook: an address to which every receiver posts; without it alerts are seen in Alertmanager alone, until
    integrations are added. Raises RuleError for an address that is none.
    """
    if webhook is not None and (
        urlsplit(webhook).scheme not in ("http", "https") or not urlsplit(webhook).hostname
    ):
        raise RuleError(f"webhook {webhook!r} is no address; write it as http://host:port/path")
    return {
        "route": _route(),
        "inhibit_rules": _inhibitions(),
        "receivers": [_receiver(name, webhook) for name in RECEIVERS],
    }


def _route() -> dict[str, object]:
    return {
        # what no route below takes is not lost
        "receiver": "ticket",
        "group_by": ["service", "alertname"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": [
            {
                "receiver": "watchdog",
                "matchers": [f'alertname="{WATCHDOG}"'],
                "group_wait": "0s",
                "group_interval": "1m",
                "repeat_interval": "2m",
            },
            {
                "receiver": "page",
                "matchers": [f'severity="{Severity.PAGE.value}"'],
                # long enough for the alerts of one incident to come together, short enough for an outage
                "group_wait": "10s",
                "group_interval": "1m",
                "repeat_interval": "1h",
            },
            {
                "receiver": "ticket",
                "matchers": [f'severity="{Severity.TICKET.value}"'],
                "group_wait": "1m",
                "repeat_interval": "1d",
            },
        ],
    }


def _inhibitions() -> list[dict[str, object]]:
    page, ticket = (f'severity="{severity.value}"' for severity in Severity)
    return [
        {  # the same budget burns: the page says it already
            "source_matchers": [page, 'slo!=""'],
            "target_matchers": [ticket, 'slo!=""'],
            "equal": ["service", "slo"],
        },
        {  # all are down: that each is, and what nobody measures, follows from it
            "source_matchers": ['alertname="AllTargetsDown"'],
            "target_matchers": ['alertname=~"TargetDown|MetricsAbsent"'],
            "equal": ["service", "job"],
        },
    ]


def _receiver(name: str, webhook: str | None) -> dict[str, object]:
    if webhook is None:
        return {"name": name}
    # a dead-man's switch hears heartbeats only: an end of the heartbeat is nothing that could be sent
    hook = {"url": webhook, "send_resolved": name != "watchdog"}
    return {"name": name, "webhook_configs": [hook]}
