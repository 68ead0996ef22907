"""Who hears of what, asked of amtool itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from taskscope.testing.engines.alertmanager import amtool
from taskscope_alerts import RuleError, alertmanager, alerts_by_name
from taskscope_alerts.render import alertmanager_yaml
from taskscope_taskapi.catalogue import CATALOGUE

HOOK = "http://127.0.0.1:9/alerts"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager_yaml(CATALOGUE), encoding="utf-8")
    return path


@pytest.mark.engine
@pytest.mark.parametrize("webhook", [None, HOOK], ids=["without a webhook", "with a webhook"])
def test_amtool_takes_the_configuration(webhook: str | None, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager_yaml(CATALOGUE, webhook=webhook), encoding="utf-8")
    assert amtool("check-config", path).returncode == 0


@pytest.mark.engine
@pytest.mark.parametrize("name", alerts_by_name(CATALOGUE))
def test_each_alert_reaches_the_receiver_of_its_severity(name: str, config: Path) -> None:
    for alert in alerts_by_name(CATALOGUE)[name]:
        severity = alert.severity.value if alert.severity is not None else ""
        labels = [f"{key}={value}" for key, value in alert.labels]
        labels += [f"severity={severity}"] if severity else []
        found = amtool(
            "config", "routes", "test", f"--config.file={config}", f"alertname={name}", *labels
        )
        assert found.stdout.split() == [severity or "watchdog"]


@pytest.mark.engine
def test_an_alert_of_unknown_severity_is_not_lost(config: Path) -> None:
    found = amtool("config", "routes", "test", f"--config.file={config}", "severity=critical")
    assert found.stdout.split() == ["ticket"]


def test_one_incident_is_one_notification_and_its_ticket_waits_for_the_page() -> None:
    read = yaml.safe_load(alertmanager_yaml(CATALOGUE))
    assert read["route"]["group_by"] == ["service", "alertname"]
    assert read["inhibit_rules"][0] == {
        "source_matchers": ['severity="page"', 'slo!=""'],
        "target_matchers": ['severity="ticket"', 'slo!=""'],
        "equal": ["service", "slo"],
    }


def test_receivers_have_no_integration_unless_one_is_given() -> None:
    assert alertmanager()["receivers"] == [{"name": n} for n in ("page", "ticket", "watchdog")]


def test_a_webhook_hears_of_ends_too_but_for_the_watchdog() -> None:
    receivers = alertmanager(webhook=HOOK)["receivers"]
    assert receivers == [
        {"name": "page", "webhook_configs": [{"url": HOOK, "send_resolved": True}]},
        {"name": "ticket", "webhook_configs": [{"url": HOOK, "send_resolved": True}]},
        {"name": "watchdog", "webhook_configs": [{"url": HOOK, "send_resolved": False}]},
    ]


@pytest.mark.parametrize("address", ["", "127.0.0.1:9", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(RuleError, match="no address"):
        alertmanager(webhook=address)
