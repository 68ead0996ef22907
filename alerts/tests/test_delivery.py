"""What a real Alertmanager does with our alerts: one incident is one notification, and it arrives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskscope.testing.engines import HOST, free_port, running
from taskscope.testing.engines.alertmanager import alertmanager as engine
from taskscope_alerts import alerts_by_name
from taskscope_alerts.render import alertmanager_yaml
from taskscope_taskapi.catalogue import CATALOGUE

pytestmark = pytest.mark.engine
DEADLINE_S = 20.0


@dataclass
class Receiver:
    """A webhook that keeps what was posted to it."""

    posts: list[dict[str, Any]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver.posts.append(json.loads(self.rfile.read(length)))
                receiver.arrived.set()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # its parent's name
                """Say nothing."""

        return Handler


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    kept = Receiver()
    with ThreadingHTTPServer((HOST, 0), kept.handler()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield kept, f"http://{HOST}:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def api(receiver: tuple[Receiver, str], tmp_path: Path) -> Iterator[httpx2.Client]:
    config = tmp_path / "alertmanager.yml"
    config.write_text(alertmanager_yaml(CATALOGUE, webhook=receiver[1]), encoding="utf-8")
    port = free_port()
    with (
        running(engine(tmp_path, port=port, config=config)),
        httpx2.Client(base_url=f"http://{HOST}:{port}/api/v2", timeout=10) as client,
    ):
        yield client


def fire(api: httpx2.Client, *names: str) -> None:
    """Each rule of those names fires, as Prometheus would say it."""
    alerts = [
        {
            "labels": {
                "alertname": name,
                **({"severity": alert.severity.value} if alert.severity else {}),
                **dict(alert.labels),
            },
            "annotations": {"summary": alert.summary, "runbook_url": f"{name}.md"},
        }
        for name in names
        for alert in alerts_by_name(CATALOGUE)[name]
    ]
    api.post("/alerts", json=alerts).raise_for_status()


def silent(api: httpx2.Client) -> set[tuple[str, str]]:
    """Name and job or objective of each alert that another one inhibits."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("job") or alert["labels"].get("slo", ""))
        for alert in api.get("/alerts").json()
        if alert["status"]["inhibitedBy"]
    }


def until_silent(api: httpx2.Client, expected: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What is inhibited, once it is what was expected or the deadline has passed."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := silent(api)) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_a_page_inhibits_the_ticket_of_its_own_objective_and_no_other(api: httpx2.Client) -> None:
    fire(
        api,
        "AvailabilityBudgetFastBurn",
        "AvailabilityBudgetSlowBurn",
        "LatencyBudgetSlowBurn",
        "DatabasePoolSaturated",
    )
    expected = {("AvailabilityBudgetSlowBurn", "availability")}
    assert until_silent(api, expected) == expected


def test_a_service_that_is_down_inhibits_what_follows_from_it_alone(api: httpx2.Client) -> None:
    fire(api, "AllTargetsDown", "TargetDown", "MetricsAbsent", "LogDeliveryDelayed")
    expected = {("TargetDown", "taskapi"), ("MetricsAbsent", "taskapi")}
    assert until_silent(api, expected) == expected


def test_the_watchdog_arrives_at_its_receiver_at_once(
    api: httpx2.Client, receiver: tuple[Receiver, str]
) -> None:
    kept, _ = receiver
    fire(api, "Watchdog")
    assert kept.arrived.wait(DEADLINE_S)
    post = kept.posts[0]
    assert (post["receiver"], post["status"]) == ("watchdog", "firing")
    assert post["groupLabels"] == {"alertname": "Watchdog", "service": "taskapi"}
