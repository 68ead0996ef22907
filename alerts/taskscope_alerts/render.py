"""A catalogue as the files on-call needs: Prometheus' rules, Alertmanager's configuration, one runbook an alert.

Pure: the text depends on the catalogue alone, so the committed files are the golden ones. Read by `taskscope build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.links import runbook_path
from taskscope_alerts.advice import addresses
from taskscope_alerts.groups import alerts_by_name, groups
from taskscope_alerts.routing import alertmanager
from taskscope_alerts.rule import Alert, Group, Recording
from taskscope_alerts.runbook import GENERATED, Condition, Heading, markdown

if TYPE_CHECKING:
    import yaml

__all__ = ["alertmanager_yaml", "render", "rules_yaml", "runbooks"]

_WIDTH: Final = 10_000
"""No folding: a line of PromQL stays one line."""


def render(catalogue: Catalogue) -> dict[str, str]:
    """Each file's text by its path relative to `alerts/`. Raises RuleError."""
    files = {
        f"generated/{catalogue.service}.rules.yml": rules_yaml(catalogue),
        "generated/alertmanager.yml": alertmanager_yaml(catalogue),
    }
    files |= {f"runbooks/{path}": text for path, text in runbooks(catalogue).items()}
    return files


def rules_yaml(catalogue: Catalogue) -> str:
    """The rule file, for Prometheus 2.42 and later."""
    made = [_group(catalogue, group) for group in groups(catalogue)]
    return _yaml(catalogue, {"groups": made})


def alertmanager_yaml(catalogue: Catalogue, *, webhook: str | None = None) -> str:
    """Alertmanager's configuration, for 0.25 and later. webhook: where receivers post, if anywhere."""
    return _yaml(catalogue, alertmanager(webhook=webhook))


def runbooks(catalogue: Catalogue) -> dict[str, str]:
    """The text of each runbook by its file name."""
    return {
        runbook_path(name): markdown(_heading(catalogue, name, alerts), alerts[0].runbook)
        for name, alerts in sorted(alerts_by_name(catalogue).items())
    }


def _heading(catalogue: Catalogue, name: str, alerts: tuple[Alert, ...]) -> Heading:
    return Heading(
        alert=name,
        service=catalogue.service,
        conditions=tuple(
            Condition(severity=_severity(alert), hold=alert.hold, expr=alert.expr)
            for alert in alerts
        ),
        board=catalogue.links.board(catalogue.service, alerts[0].board),
        page=catalogue.links.page,
        addresses=addresses.STEPS,
    )


def _severity(alert: Alert) -> str:
    return alert.severity.value if alert.severity is not None else ""


def _group(catalogue: Catalogue, group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "interval": f"{group.interval_s}s",
        "rules": [
            _recording(rule) if isinstance(rule, Recording) else _alert(catalogue, rule)
            for rule in group.rules
        ],
    }


def _recording(rule: Recording) -> dict[str, object]:
    return {"record": rule.name, "expr": _Block(rule.expr + "\n"), "labels": dict(rule.labels)}


def _alert(catalogue: Catalogue, alert: Alert) -> dict[str, object]:
    labels = {"severity": _severity(alert)} if alert.severity is not None else {}
    made: dict[str, object] = {"alert": alert.name, "expr": _Block(alert.expr + "\n")}
    if alert.hold:
        made["for"] = alert.hold
    if alert.keep:
        made["keep_firing_for"] = alert.keep
    made["labels"] = labels | dict(alert.labels)
    made["annotations"] = {
        "summary": alert.summary,
        "description": alert.description,
        "dashboard_url": catalogue.links.board(catalogue.service, alert.board),
        "runbook_url": catalogue.links.runbook(alert.name),
    }
    return made


class _Block(str):
    """Text that YAML shows as a `|` block, one operand a line."""

    __slots__ = ()


def _yaml(catalogue: Catalogue, value: dict[str, object]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Blocks for PromQL, lists indented under their key, no aliases."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            del indentless
            super().increase_indent(flow, indentless=False)

        def ignore_aliases(self, data: object) -> bool:
            del data
            return True

    def block(dumper: yaml.SafeDumper, data: _Block) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", str(data), style="|")

    Dumper.add_representer(_Block, block)
    body = yaml.dump(value, Dumper=Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return f"# {GENERATED} {catalogue.service}\n{body}"
